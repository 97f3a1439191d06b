"""The README of a bundle that compares two pictures: for someone who has neither medcli nor the run."""

from __future__ import annotations

from medcli.bundles.difference import DifferenceManifest
from medcli.export.readme import figures_section, licences_section, numbers

__all__ = ["difference_readme"]

_CODE = """```python
import numpy as np
import onnxruntime
from PIL import Image

options = onnxruntime.SessionOptions()
options.log_severity_level = 3
session = onnxruntime.InferenceSession("model.onnx", options)
baseline, followup = (
    np.asarray(Image.open(name).convert("L"))[None, ..., None] for name in ("prior.png", "current.png")
)
(change,) = session.run(["map"], {"baseline": baseline, "followup": followup})
print(f"{change.min():.4f} to {change.max():.4f}")
```"""


def difference_readme(manifest: DifferenceManifest) -> str:
    """The text."""
    parts = [
        f"# {manifest.name}",
        f"{manifest.model}, trained and exported with medcli {manifest.medcli} ({manifest.created}). It compares two "
        "radiographs of one patient: the map says where the later one differs.",
        "For research only, no medical device: whoever uses its maps has to make sure that they are right for this "
        "purpose.",
        "## Running it",
        _CODE,
        *_input(manifest),
        "## What the numbers mean",
        _meaning(manifest),
        "## Was it checked?",
        _checked(manifest),
        *figures_section(manifest.facts),
        *licences_section(manifest.facts.get("card", {})),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _input(manifest: DifferenceManifest) -> list[str]:
    size = manifest.image_size
    aligned = (
        "The network learnt from pairs as they lay, without alignment: give them so."
        if manifest.register == "none"
        else f"The network learnt from aligned pairs (`{manifest.register}`): lay the baseline over the follow-up "
        "first, bring its grey values to those of the follow-up, and where not both show something repeat the "
        "follow-up in it. The graph does none of this; medcli does all of it."
    )
    return [
        "Inputs `baseline` (the earlier) and `followup`: uint8 [n, height, width, channels], 1 channel or 3 (red, "
        "green, blue), dense tissue bright. Inside the graph each becomes grey, is resized (bilinear, antialiased) so "
        f"that its long side has {size} pixels, padded with black to {size} × {size}, kept in 0 to 1, and "
        f"(x − mean) / std with mean {numbers(manifest.mean)} and std {numbers(manifest.std)}. For sources above 8 "
        "bits give zeros, and the picture in units from 0 (black) to 1 (white) as `baseline_deep` or `followup_deep`, "
        "float32 of the same shape.",
        aligned,
        f"Output `map`: float32 [n, {size}, {size}], on the square that holds the follow-up in its middle; cut the "
        "padding off to lay it over the picture. With medcli, which also finds, measures and draws what changed: "
        "`medcli diffmap predict prior.png current.png --run THIS_FOLDER`.",
    ]


def _meaning(manifest: DifferenceManifest) -> str:
    if manifest.map == "signed":
        text = "Values lie in −1 to 1: positive where the follow-up is denser, negative where it is less dense."
    else:
        text = "Values lie in 0 to 1: how much changed, whichever way."
    if manifest.antisymmetric:
        text += (
            " The graph gives half the network's map less half that of the exchanged pictures, so exchanging them "
            "turns the signs round and equal pictures give zero."
        )
    if manifest.threshold is not None:
        text += f" The run's validation pairs chose |map| ≥ {manifest.threshold:.6g} as a finding."
    return text


def _checked(manifest: DifferenceManifest) -> str:
    found = manifest.verification
    if found is None:
        return "No: it was exported with `--no-verify`, so nobody compared it with the model it was made from."
    what = "drawn pairs, because its own were no longer there" if found["drawn"] else "pairs of its own data"
    sizes = ", ".join(str(size) for size in found["batch_sizes"])
    rounding = found.get("rounding")
    why = "" if rounding is None else f": rounding to float32 alone moves the run's maps by {rounding:.1e}"
    return (
        f"Compared with the run on {found['pairs']} {what}, in batches of {sizes}: largest difference of a value "
        f"{found['map']:.1e} (allowed: {found['tolerance']:.0e}{why}). `selftest.npz` holds drawn pairs (no "
        "patient's) and their maps, which medcli makes again whenever it opens this folder."
    )
