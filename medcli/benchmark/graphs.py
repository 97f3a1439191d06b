"""The children behind `--runtime onnx` and bundles: one writes the graph, another runs it where there is no torch."""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from medcli.benchmark.items import item_from_json
from medcli.benchmark.memory import resident
from medcli.benchmark.rows import Facts
from medcli.benchmark.turns import Bench, measure_in_turns
from medcli.benchmark.worker import Tell

__all__ = ["measure_bundle", "measure_graph", "write_graph"]


def write_graph(request: Mapping[str, Any], tell: Tell) -> None:
    """Build the network and write it as ONNX.

    Args:
        request: as of `medcli.benchmark.speed.measure`, with `graph`, the file to write.
        tell: receives `facts` without what only a run can tell.
    """
    item = item_from_json(request["item"])
    import torch

    from medcli.benchmark.speed import count_macs, limit_memory, loader, processor, state_bytes
    from medcli.errors import RunFailure
    from medcli.export.graph import export_onnx
    from medcli.models.classifier import Classifier

    if request["threads"]:
        torch.set_num_threads(request["threads"])
    device = torch.device("cpu")
    load = loader(item, request)
    limit_memory(request["memory"], device)
    tell({"stage": "building"})
    network = load(device)
    module = network.module
    if not isinstance(module, Classifier):
        raise RunFailure(
            "only classifiers are written as ONNX; measure it with `--runtime torch`", code="no-classifier"
        )
    if module.adapters is not None:
        module.merge()
    facts = Facts(
        image_size=network.size,
        in_channels=network.channels,
        parameters=module.parameter_counts().total,
        backbone=network.backbone,
        macs=count_macs(module, [torch.zeros(1, network.channels, network.size, network.size)]),
        weights_bytes=state_bytes(module),
        startup_seconds=0.0,
        import_seconds=0.0,
        build_seconds=0.0,
        first_seconds=0.0,
        base_bytes=0,
        device=processor(),
        precision="fp32",
        memory_format="channels-first",
        threads=torch.get_num_threads(),
        runtime="onnx",
        figures=network.figures,
    )
    tell({"stage": "writing the graph"})
    export_onnx(module, Path(request["graph"]), channels=network.channels, image_size=network.size)
    tell({"facts": asdict(facts)})


def measure_graph(request: Mapping[str, Any], tell: Tell) -> None:
    """Run the graph that `write_graph` wrote.

    Args:
        request: with `graph` and the `facts` told before.
        tell: receives `stage`, `facts` and `timing` events.
    """
    known = Facts(**request["facts"])
    import numpy as np

    from medcli.bundles.bundle import open_session

    imported, base = _imported()
    tell({"stage": "opening the graph"})
    session = open_session(Path(request["graph"]), threads=known.threads)
    opened = time.monotonic()

    def prepare(size: int) -> Callable[[], Any]:
        shape = (size, known.in_channels, known.image_size, known.image_size)
        images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
        return lambda: session.run(["logits"], {"images": images})

    prepare(1)()
    facts = _started(known, request, imported, opened, base)
    _measure(prepare, facts, request, tell)


def measure_bundle(request: Mapping[str, Any], tell: Tell) -> None:
    """Run a bundle from uint8 pictures of the network's own size to its answer, preprocessing included.

    Args:
        request: as of `medcli.benchmark.speed.measure`.
        tell: receives `stage`, `facts` and `timing` events.
    """
    item = item_from_json(request["item"])
    import numpy as np

    from medcli.benchmark.speed import processor
    from medcli.bundles.bundle import MODEL, Bundle, open_bundle
    from medcli.bundles.difference import DifferenceBundle, open_difference_bundle

    imported, base = _imported()
    threads = request["threads"] or _threads()
    tell({"stage": "opening the bundle"})
    bundle: Bundle | DifferenceBundle
    if item.pairs:
        bundle = open_difference_bundle(item.name, threads=threads)
        image_size, channels, inputs = bundle.manifest.image_size, 1, 2
    else:
        bundle = open_bundle(item.name, threads=threads)
        how = bundle.manifest.preprocessing
        image_size, channels, inputs = how.image_size, how.channels, 1
    bundle.session  # noqa: B018 (opened here, so that it is not taken for a part of the first pass)
    opened = time.monotonic()

    def prepare(size: int) -> Callable[[], Any]:
        random = np.random.default_rng(0)
        shape = (size, image_size, image_size, channels)
        images = [random.integers(0, 256, shape, dtype=np.uint8) for _ in range(inputs)]
        return lambda: bundle.run(*images)

    prepare(1)()
    files = (Path(item.name) / MODEL, Path(item.name) / f"{MODEL}.data")
    known = Facts(
        image_size=image_size,
        in_channels=channels,
        parameters=None,
        backbone=None,
        macs=None,
        weights_bytes=sum(file.stat().st_size for file in files if file.is_file()),
        startup_seconds=0.0,
        import_seconds=0.0,
        build_seconds=0.0,
        first_seconds=0.0,
        base_bytes=0,
        device=processor(),
        precision="as exported",
        memory_format="channels-first",
        threads=threads,
        runtime="onnx, preprocessing included",
    )
    _measure(prepare, _started(known, request, imported, opened, base), request, tell)


def _imported() -> tuple[float, int]:
    """When onnxruntime has been imported, and what the process takes by then."""
    from medcli.bundles.extra import require_onnx

    require_onnx("`--runtime onnx`", "onnxruntime", where="--runtime")
    import onnxruntime  # noqa: F401 (its import is a part of the start-up)

    return time.monotonic(), resident(os.getpid())


def _started(known: Facts, request: Mapping[str, Any], imported: float, opened: float, base: int) -> Facts:
    from importlib.metadata import version

    now, spawned = time.monotonic(), float(request["spawned"])
    return replace(
        known,
        startup_seconds=now - spawned,
        import_seconds=imported - spawned,
        build_seconds=opened - imported,
        first_seconds=now - opened,
        base_bytes=base,
        runtime=known.runtime.replace("onnx", f"onnxruntime {version('onnxruntime')}", 1),
    )


def _measure(prepare: Callable[[int], Callable[[], Any]], facts: Facts, request: Mapping[str, Any], tell: Tell) -> None:
    tell({"facts": asdict(facts)})
    bench = Bench(prepare, clear=gc.collect)
    measure_in_turns(request["batch_sizes"], bench, tell, box=request["seconds"], repeats=request["repeats"])


def _threads() -> int:
    """What torch would take: `OMP_NUM_THREADS`, else the processors this process may use."""
    named = os.environ.get("OMP_NUM_THREADS", "")
    if named.isdigit() and int(named):
        return int(named)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
