"""LoRA on vit_base against full fine-tuning, in one run: images per second and peak memory, as ratios.

Each side runs in a process of its own, so that the peak is its own.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time

BATCH, STEPS, SIZE = 4, 4, 224


def measure(adapted: bool) -> dict[str, float]:
    """Train a few steps of the ordinary kind and say what they took."""
    import torch

    from medcli import build

    device = "cuda" if torch.cuda.is_available() else "cpu"
    network = build("vit_base_patch16_224", num_classes=5, seed=0).to(device)
    if adapted:
        network.add_adapter(rank=8, dropout=0.1)
    network.train()
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learnt, lr=1e-4, fused=True)
    images = torch.randn(BATCH, 3, SIZE, SIZE, device=device)
    labels = torch.arange(BATCH, device=device) % 5
    began = 0.0
    for step in range(STEPS + 1):
        if step == 1:  # the first step allocates what the optimiser keeps
            began = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        torch.nn.functional.cross_entropy(network(images), labels).backward()
        optimizer.step()
        if device == "cuda":
            torch.cuda.synchronize()
    seconds = time.perf_counter() - began
    used = torch.cuda.max_memory_allocated() if device == "cuda" else 1024 * peak()
    return {"images_per_second": BATCH * STEPS / seconds, "peak_gib": used / 2**30, "learnt": sum(map(size, learnt))}


def size(parameter: object) -> int:
    """How many numbers it holds."""
    return int(parameter.numel())  # type: ignore[attr-defined]


def peak() -> int:
    """Most memory this process has held, in KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", choices=("full", "lora"))
    side = parser.parse_args().side
    if side:
        print(json.dumps(measure(side == "lora")))
        return
    found = {}
    for name in ("full", "lora"):
        done = subprocess.run([sys.executable, __file__, "--side", name], check=True, capture_output=True, text=True)
        found[name] = json.loads(done.stdout.splitlines()[-1])
        one = found[name]
        print(
            f"{name:<5} {one['images_per_second']:7.2f} images/s  peak {one['peak_gib']:.2f} GiB  "
            f"{one['learnt']:>12,} parameters learn"
        )
    full, lora = found["full"], found["lora"]
    print(
        f"LoRA against full fine-tuning of vit_base_patch16_224, batch {BATCH}: "
        f"{lora['images_per_second'] / full['images_per_second']:.2f} x images/s, "
        f"{lora['peak_gib'] / full['peak_gib']:.2f} x peak memory"
    )


if __name__ == "__main__":
    main()
