"""The README that travels in a bundle: for someone who has neither medcli nor the run, only the folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medcli.bundles.manifest import Manifest
from medcli.data.target import Target

__all__ = ["figures_section", "licences_section", "numbers", "readme"]

_ONNX = """```python
import numpy as np
import onnxruntime
from PIL import Image

options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession("model.onnx", options)
image = np.asarray(Image.open("scan.png").convert("RGB"))
({answer},) = session.run(["{answer}"], {{"image": image[None]}})
{show}
```"""

_PT2 = """```python
import numpy as np
import torch
from PIL import Image

before = torch.export.load("before.pt2").module()
network = torch.export.load("network.pt2").module()
image = np.array(Image.open("scan.png").convert("RGB"))
with torch.inference_mode():
    logits, features = network(before(torch.from_numpy(image)[None]))
print(logits)
```

torch reads `.pt2` files with an unpickler, which may run code: open only files you trust. medcli never opens any."""

_SAFETENSORS = """```python
import torch
from medcli import load

model = load("model.safetensors")
with torch.inference_mode():
    logits = model.decode(model(torch.zeros(1, {channels}, {size}, {size})))
print(logits)
```

The tensors can be read without medcli (`safetensors.torch.load_file("model.safetensors")`): names of `{architecture}`
begin with `backbone.`, those of its head with `medcli_head.`. `config.json` says how network and input are made."""

_ADAPTER = """```python
from medcli import build

model = build({build})
model.load_adapter("adapter")
```

Adapter and head belong on the base named in `adapter/adapter_config.json` and `bundle.json`, and on no other."""


def readme(manifest: Manifest, build: str = "") -> str:
    """The text.

    Args:
        manifest: of the bundle.
        build: the arguments of `medcli.build` that make the base of an adapter.
    """
    how, target = manifest.preprocessing, manifest.target
    answer = manifest.outputs[0] if manifest.outputs else "logits"
    code = {
        "onnx": _ONNX.format(answer=answer, show=_show(target, answer)),
        "pt2": _PT2,
        "safetensors": _SAFETENSORS.format(
            channels=how.channels, size=how.image_size, architecture=manifest.architecture
        ),
        "adapter": _ADAPTER.format(build=build),
    }[manifest.format]
    parts = [
        f"# {manifest.name}",
        f"{manifest.architecture}, trained and exported with medcli {manifest.medcli} ({manifest.created}). "
        f"{_predicts(target)}",
        "Not a medical device: whoever uses its answers has to make sure that they are right for this purpose.",
        "## Running it",
        code,
        *_input(manifest),
        "## What the numbers mean",
        _meaning(manifest, answer),
        *_thresholds(manifest),
        "## Was it checked?",
        _checked(manifest.verification),
        *_quantised(manifest.facts, thresholds=bool(manifest.thresholds)),
        *figures_section(manifest.facts),
        *licences_section(manifest.facts.get("card", {})),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _show(target: Target, answer: str) -> str:
    if target.task == "multioutput":
        names = [(output.name, list(output.classes)) for output in target.outputs]
        return f"for (output, classes), row in zip({names!r}, {answer}[0]):\n    print(output, dict(zip(classes, row)))"
    return f'for name, value in zip({list(target.class_names)!r}, {answer}[0]):\n    print(f"{{name}}: {{value:.4f}}")'


def _predicts(target: Target) -> str:
    if target.task == "multioutput":
        listed = "; ".join(f"{output.name}: {', '.join(output.classes)}" for output in target.outputs)
        return f"It answers several questions ({listed})."
    if target.task == "binary":
        finding = target.class_names[target.positive]
        return f"It tells {' from '.join(target.class_names)}; the finding is `{finding}`."
    kind = {
        "ordinal": f"It grades: {', '.join(target.class_names)}.",
        "multilabel": f"It says yes or no to each of: {', '.join(target.class_names)}.",
    }
    return kind.get(target.task, f"It chooses one of: {', '.join(target.class_names)}.")


def _input(manifest: Manifest) -> list[str]:
    how = manifest.preprocessing
    steps = (
        f"{how.fit} to {how.image_size} × {how.image_size} pixels ({how.interpolation}, antialiased), then "
        f"(x − mean) / std with mean {numbers(how.mean)} and std {numbers(how.std)}"
    )
    if manifest.format != "onnx":
        return [f"Input of the network: float32 [n, {how.channels}, {how.image_size}, {how.image_size}] from {steps}."]
    return [
        "Input `image`: uint8 [n, height, width, channels], 1 channel or 3 (red, green, blue), any size, any number of "
        f"pictures of one size. Inside the graph: {steps}. For sources above 8 bits give zeros as `image`, and the "
        "picture in units from 0 (black) to 1 (white) as the optional second input `deep`, float32 of the same shape.",
        "Outputs: `" + "`, `".join(manifest.outputs) + "`. With medcli: `medcli predict THIS_FOLDER scan.png`.",
    ]


def _meaning(manifest: Manifest, answer: str) -> str:
    if manifest.calibrated:
        text = f"Scores were made probabilities by `{manifest.calibrated}`"
        where = "inside the graph" if manifest.format == "onnx" else "described in `bundle.json`, not part of the file"
        return f"{text}, {where}."
    return f"`{answer}` were never calibrated: they order cases, they are no probabilities."


def _thresholds(manifest: Manifest) -> list[str]:
    if not manifest.thresholds:
        return []
    rows = [
        f"| {one.name or '(finding)'} | {one.rule} | {one.value:.6g} | {one.cases} |" for one in manifest.thresholds
    ]
    return [
        "Operating points, chosen on validation cases: a value of at least this means yes.",
        "\n".join(["| label | rule | threshold | cases |", "| --- | --- | --- | --- |", *rows]),
    ]


def _checked(verification: Mapping[str, Any] | None) -> str:
    if verification is None:
        return "No: it was exported with `--no-verify`, so nobody compared it with the model it was made from."
    sizes = ", ".join(str(size) for size in verification["batch_sizes"])
    probability, allowed = verification["probability"], verification["tolerance"]
    return (
        f"Compared with the run on {verification['images']} real pictures, in batches of {sizes}: largest difference "
        f"of a probability {probability:.1e} (allowed: {allowed:.0e}), of a logit {verification['logit']:.1e}, of a "
        f"feature {verification['feature']:.1e}. `selftest.npz` holds drawn pictures (no patient's) and the answers to "
        "them, which medcli computes again whenever it opens this folder."
    )


def _quantised(facts: Mapping[str, Any], *, thresholds: bool) -> list[str]:
    found = facts.get("quantization")
    if not found:
        return []
    size, speed = found["network_bytes"], found["latency_ms"]
    rows = [
        f"| {one['figure']} | {one['cases']} | {_figure(one['before'])} | {_figure(one['after'])} | "
        f"{_figure(one['drop'])} ({_figure(one['low'])} to {_figure(one['high'])}) |"
        for one in found["validation"]
    ]
    text = (
        f"Then its network was quantised ({facts['quantized']}: {found['way']}), preprocessing and calibrator not: "
        f"{size['before'] / 1e6:.1f} -> {size['after'] / 1e6:.1f} MB, {speed['before']:.1f} -> {speed['after']:.1f} ms "
        f"for one picture on the machine that exported. So a probability differs from the run's by up to "
        f"{found['largest_difference']['probability']:.2g} on the {found['largest_difference']['images']} pictures "
        "above, and what counts is what is lost on the validation cases, by which the way was chosen:"
    )
    if found["depends_on_batch"]:
        text = f"Answers depend a little on the other pictures of a batch; give one picture at a time. {text}"
    if thresholds:
        text = f"{text[:-1]} (the operating points were chosen before it was quantised; check them on cases of yours):"
    heading = ["| figure | cases | before | after | lost (95 % interval) |", "| --- | --- | --- | --- | --- |"]
    return [text, "\n".join([*heading, *rows])]


def figures_section(facts: Mapping[str, Any]) -> list[str]:
    """The figures of the run's test cases as a section; nothing where there are none."""
    figures = facts.get("figures", {}).get("test")
    if not figures:
        return []
    rows = [
        f"| {name} | {_figure(values.get('value'))} | {_interval(values.get('low'), values.get('high'))} |"
        for name, values in figures.items()
    ]
    table = "\n".join(["| figure | value | 95 % interval |", "| --- | --- | --- |", *rows])
    of = facts.get("figures_of", "these scores")
    before = "" if facts.get("quantized", "none") == "none" else ", before it was quantised"
    return [f"## Figures on its test cases\n\nOf {of}{before}.\n\n{table}"]


def licences_section(card: Mapping[str, Any]) -> list[str]:
    """What the card says of the network as a section; nothing without a card."""
    if not card:
        return []
    lines = [f"Architecture: {card.get('summary', '')}"]
    lines += [f"- {one['title']} ({one['year']}), {one['url']}" for one in card.get("references", ())]
    if card.get("licence"):
        lines.append(f"Licence of the network's code: {card['licence']}.")
    if card.get("note"):
        lines.append(f"Its card says of the architecture, before any training: {card['note']}.")
    return ["## The architecture", "\n".join(lines)]


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "-" if low is None and high is None else f"{_figure(low)} to {_figure(high)}"


def numbers(values: tuple[float, ...]) -> str:
    """Numbers as a text of a README."""
    return ", ".join(f"{value:g}" for value in values)
