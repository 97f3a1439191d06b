"""What the difference models of medcli-longitudinal cost: parameters, memory and time, beside the document's figures.

    python bench/diffmap_memory.py count      # what the backward pass keeps at batch 4, counted without a device
    python bench/diffmap_memory.py run        # longitudinal-subtract-big at 512², one pair, on this machine
    python bench/diffmap_memory.py run --device cuda --batch-size 4

`count` runs on the meta device: every tensor that autograd keeps, by its storage, in float32; beside it weights,
gradients and the two moments of AdamW, 16 bytes for each parameter. `run` measures processor or GPU memory, each case
in a process of its own.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

GIB = 2**30
NAMES = (
    "LongitudinalMIMModelBig",
    "LongitudinalMIMModel",
    "SubtractModelBig",
    "SubtractModel",
    "MaskedReconstructionModel",
)
DOCUMENT = {
    "LongitudinalMIMModelBig": ("~180 M", "~12 GB"),
    "LongitudinalMIMModel": ("~120 M", "~8 GB"),
    "MaskedReconstructionModel": ("~100 M", "~6 GB"),
}


def count(batch_size: int) -> None:
    import torch
    from medcli_longitudinal import models

    print("| network | parameters | the document's | kept, GiB | with weights and AdamW, GiB | the document's |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in NAMES:
        with torch.device("meta"):
            network = getattr(models, name)().train()
            images = [torch.zeros(batch_size, 1, 512, 512) for _ in range(1 if "Masked" in name else 2)]
        kept: dict[int, tuple[Any, int]] = {}

        def keep(tensor: Any, kept: dict[int, tuple[Any, int]] = kept) -> Any:
            storage = tensor.untyped_storage()
            kept[storage._cdata] = (tensor, storage.nbytes())  # the tensor too, so that no address is used twice
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            network(*images)
        own = {one.untyped_storage()._cdata for one in (*network.parameters(), *network.buffers())}
        saved = sum(size for key, (_, size) in kept.items() if key not in own)
        parameters = sum(one.numel() for one in network.parameters())
        said = DOCUMENT.get(name, ("-", "-"))
        whole = (saved + 16 * parameters) / GIB
        print(f"| `{name}` | {parameters:,} | {said[0]} | {saved / GIB:.1f} | {whole:.1f} | {said[1]} |")


def run(device: str, batch_size: int, threads: int, model: str) -> None:
    print(f"{model}, 512 × 512, {batch_size} pair(s), float32, {device}, {threads} thread(s)")
    print("| | checkpointing | ms | peak, GiB |\n| --- | --- | --- | --- |")
    for backward in (False, True):
        for checkpointed in (False, True) if backward else (False,):
            asked = json.dumps([device, batch_size, threads, backward, checkpointed, model])
            done = subprocess.run(
                [sys.executable, __file__, "child", asked], capture_output=True, text=True, check=True
            )
            milliseconds, peak = json.loads(done.stdout)
            what = "forward + backward" if backward else "forward"
            print(f"| {what} | {'yes' if checkpointed else 'no'} | {milliseconds:,.0f} | {peak:.2f} |", flush=True)


def child(asked: str) -> None:
    device, batch_size, threads, backward, checkpointed, model = json.loads(asked)
    import torch

    from medcli.diffmap.network import build_difference

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    before = _resident()
    network = build_difference(model, in_channels=1, image_size=512, options={"grad_checkpointing": checkpointed})
    network.train(backward).to(device)
    pair = [torch.rand(batch_size, 1, 512, 512, device=device) for _ in range(2)]
    times = []
    for _ in range(3 if device == "cuda" else 1):
        network.zero_grad(set_to_none=True)
        started = time.perf_counter()
        with torch.set_grad_enabled(backward):
            change = network(*pair)
            if backward:
                change.square().mean().backward()
        if device == "cuda":
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    peak = torch.cuda.max_memory_allocated() if device == "cuda" else _resident() - before
    print(json.dumps([min(times) * 1e3, peak / GIB]))


def _resident() -> int:
    """The most memory this process has held, in bytes."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["count", "run", "child"])
    parser.add_argument("asked", nargs="?", default="")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch-size", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--model", default="longitudinal-subtract-big")
    given = parser.parse_args()
    if given.what == "child":
        child(given.asked)
    elif given.what == "count":
        count(given.batch_size or 4)
    else:
        run(given.device, given.batch_size or 1, given.threads, given.model)


if __name__ == "__main__":
    main()
