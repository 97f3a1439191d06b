"""The child that measures speed and memory of one network at several batch sizes."""

from __future__ import annotations

import contextlib
import gc
import os
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.benchmark.items import Item, item_from_json
from medcli.benchmark.memory import resident
from medcli.benchmark.rows import Facts
from medcli.benchmark.turns import Bench, measure_in_turns
from medcli.benchmark.worker import Tell

if TYPE_CHECKING:
    import torch
    from torch import nn

    from medcli.models.device import Precision

__all__ = ["Network", "count_macs", "limit_memory", "loader", "measure", "processor", "state_bytes"]

_FALLBACK_SIZE = 224
_RESERVE = 2**30
"""Bytes that a process may ask for beyond its limit of resident memory: much that is asked for is never touched."""


@dataclass(frozen=True)
class Network:
    """A network with what it is fed.

    Args:
        module: in eval mode, on the device.
        inputs: how many pictures a case has: two for a difference model.
        channels, size: of each picture.
        backbone: parameters of its backbone or encoder.
        figures: stored test figures of a run.
    """

    module: nn.Module
    inputs: int
    channels: int
    size: int
    backbone: int
    figures: Mapping[str, Any]


def measure(request: Mapping[str, Any], tell: Tell) -> None:
    """Measure one item.

    Args:
        request: `item`, `batch_sizes`, `device`, `precision`, `memory_format`, `compile`, `threads`, `seconds`,
            `repeats`, `classes`, `image_size`, `in_channels`, `spawned` (monotonic time), `memory` (bytes or None).
        tell: receives `stage`, `facts` and `timing` events.
    """
    item = item_from_json(request["item"])
    import torch

    from medcli.models.device import choose_device, choose_precision
    from medcli.prediction.predict import suits_channels_last

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    device = choose_device(request["device"])
    precision = choose_precision(request["precision"], device)
    load = loader(item, request)
    limit_memory(request["memory"], device)
    imported, base = time.monotonic(), resident(os.getpid())
    tell({"stage": "building"})
    network = load(device)
    wanted = request["memory_format"]
    last = suits_channels_last(network.module) if wanted == "auto" else wanted == "channels-last"
    layout = torch.channels_last if last else torch.contiguous_format
    network.module.to(memory_format=layout)
    built = time.monotonic()
    call = torch.compile(network.module, dynamic=False) if request["compile"] else network.module
    passing = _Passing(call, network, device, precision, layout)
    tell({"stage": "first pass"})
    passing.prepare(1)()
    passing.synchronise()
    first = time.monotonic()
    spawned = float(request["spawned"])
    parameters = sum(one.numel() for one in network.module.parameters())
    facts = Facts(
        image_size=network.size,
        in_channels=network.channels,
        parameters=parameters,
        backbone=network.backbone,
        macs=count_macs(network.module, passing.inputs(1)),
        weights_bytes=state_bytes(network.module),
        startup_seconds=first - spawned,
        import_seconds=imported - spawned,
        build_seconds=built - imported,
        first_seconds=first - built,
        base_bytes=base,
        device=_name(device),
        precision=precision,
        memory_format="channels-last" if last else "channels-first",
        threads=torch.get_num_threads(),
        runtime=f"torch {torch.__version__}" + (", compiled" if request["compile"] else ""),
        figures=network.figures,
    )
    tell({"facts": asdict(facts)})
    cuda = device.type == "cuda"

    def clear() -> None:
        gc.collect()
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(device)

    bench = Bench(
        passing.prepare,
        passing.synchronise,
        clear,
        device_bytes=lambda: torch.cuda.max_memory_allocated(device) if cuda else None,
        compiled=bool(request["compile"]),
    )
    measure_in_turns(request["batch_sizes"], bench, tell, box=request["seconds"], repeats=request["repeats"])


class _Passing:
    """Makes passes of a batch size: inputs are drawn once and lie on the device before any is timed."""

    def __init__(
        self,
        call: Callable[..., Any],
        network: Network,
        device: torch.device,
        precision: Precision,
        layout: torch.memory_format,
    ) -> None:
        self._call, self._network = call, network
        self._device, self._precision, self._layout = device, precision, layout

    def inputs(self, size: int) -> list[torch.Tensor]:
        """Normal numbers, as normalised pictures have them; the same ones every time."""
        import torch

        generator = torch.Generator().manual_seed(0)
        shape = (size, self._network.channels, self._network.size, self._network.size)
        drawn = (torch.randn(shape, generator=generator) for _ in range(self._network.inputs))
        return [one.to(self._device).contiguous(memory_format=self._layout) for one in drawn]

    def prepare(self, size: int) -> Callable[[], Any]:
        """A function that makes one pass: eval mode, no gradients, nothing copied."""
        import torch

        from medcli.models.device import autocast

        inputs = self.inputs(size)

        def run() -> Any:
            with torch.inference_mode(), autocast(self._device, self._precision):
                return self._call(*inputs)

        return run

    def synchronise(self) -> None:
        """Wait until the device has done what it was given."""
        import torch

        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        elif self._device.type == "mps":
            torch.mps.synchronize()


def loader(item: Item, request: Mapping[str, Any]) -> Callable[[torch.device], Network]:
    """Import what makes the network; the function returned makes it."""
    if item.kind == "run":
        return lambda device: _run(item, device)
    from medcli.models.build import build_classifier
    from medcli.registry.cards import read_card
    from medcli.registry.discovery import ARCHITECTURES, DIFFERENCE_MODELS, discover, find, load_factory

    group = DIFFERENCE_MODELS if item.kind == "difference" else ARCHITECTURES
    entry = find(discover(), item.name, group)
    card = read_card(entry)
    channels = request["in_channels"] or (card.in_channels if card else None) or 3
    size = request["image_size"] or (card.input_size if card else None) or _FALLBACK_SIZE
    factory: Any = load_factory(entry)

    def classifier(device: torch.device) -> Network:
        from medcli.data.target import Target
        from medcli.models.spec import ModelSpec

        names = tuple(str(index) for index in range(request["classes"]))
        target = Target("binary" if len(names) == 2 else "multiclass", names)
        spec = ModelSpec(architecture=item.name, in_channels=channels, image_size=size, target=target)
        network = build_classifier(spec, seed=0).classifier.eval().to(device)
        return Network(network, 1, channels, size, network.parameter_counts().backbone, {})

    def difference(device: torch.device) -> Network:
        from medcli.errors import RunFailure

        network = factory(in_channels=channels, image_size=size)
        if not hasattr(network, "encoder") or not hasattr(network, "parameters"):
            raise RunFailure(f"`{item.name}` gave a {type(network).__name__} without `encoder`", code="broken-plugin")
        count = sum(one.numel() for one in network.encoder.parameters())
        return Network(network.eval().to(device), 2, channels, size, count, {})

    return difference if item.kind == "difference" else classifier


def _run(item: Item, device: torch.device) -> Network:
    """A trained model, as `predict` uses it."""
    from medcli.models.build import load_run
    from medcli.prediction.finish import read_evaluations
    from medcli.runs.directory import open_run

    if item.pairs:
        return _difference_run(item, device)
    run = open_run(item.name)
    loaded = load_run(run, device)
    loaded.predictor.eval()
    stored = read_evaluations(run.path)
    figures: Mapping[str, Any] = next((stored[split]["figures"] for split in ("test", "val") if split in stored), {})
    kept = {
        name: {key: figures[name].get(key) for key in ("value", "low", "high")}
        for name in ("auc", "accuracy")
        if name in figures
    }
    counts = loaded.classifier.parameter_counts()
    how = loaded.preprocessing
    return Network(loaded.predictor, 1, how.channels, how.image_size, counts.backbone, kept)


def _difference_run(item: Item, device: torch.device) -> Network:
    """A trained difference model, as `diffmap predict` uses it: a signed map takes two passes of the network."""
    from medcli.diffmap.run import MapNetwork, load_difference_run

    loaded = load_difference_run(item.name, device)
    encoder: Any = loaded.network.encoder
    backbone = sum(one.numel() for one in encoder.parameters())
    return Network(MapNetwork(loaded), 2, 1, loaded.spec.image_size, backbone, {})


def count_macs(module: nn.Module, inputs: Sequence[torch.Tensor]) -> int | None:
    """For one image: half the floating-point operations of convolutions, matrix products and attention."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    try:
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            module(*inputs)
    except Exception:
        # An operator that cannot be traced this way can still be timed.
        return None
    return int(counter.get_total_flops()) // 2


def state_bytes(module: nn.Module) -> int:
    """Of all tensors in its state, each counted once."""
    seen = {tensor.data_ptr(): tensor.numel() * tensor.element_size() for tensor in module.state_dict().values()}
    return sum(seen.values())


def limit_memory(resident_bytes: int | None, device: torch.device) -> None:
    """A hard wall behind the limit that the parent watches, for one that takes memory faster than it is looked at."""
    if resident_bytes is not None and device.type == "cpu":
        wall = resident_bytes + _RESERVE
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_DATA, (wall, resource.getrlimit(resource.RLIMIT_DATA)[1]))


def _name(device: torch.device) -> str:
    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor() if device.type == "cpu" else device.type


def processor() -> str:
    """The CPU, as the kernel calls it."""
    with contextlib.suppress(OSError, IndexError):
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return f"cpu: {line.partition(':')[2].strip()}"
    return "cpu"
