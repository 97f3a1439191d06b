"""What torch sees of this machine, asked in a process of its own: its crash on import ends nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medcli.registry.children import serve

__all__ = ["facts"]


def facts() -> dict[str, Any]:
    """Cores, threads, free memory in bytes, and a name and a sentence for every accelerator."""
    import os

    import torch

    from medcli.data.cache import available_memory

    accelerators = []
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        free, total = torch.cuda.mem_get_info(index)
        about = (
            f"{properties.name}, {total / 2**30:.0f} GiB ({free / 2**30:.0f} free), compute capability "
            f"{properties.major}.{properties.minor}, CUDA {torch.version.cuda}, "
            f"bf16 {'yes' if torch.cuda.is_bf16_supported() else 'no'}"
        )
        accelerators.append({"name": f"cuda:{index}", "about": about})
    if torch.backends.mps.is_available():
        accelerators.append({"name": "mps", "about": "Apple GPU"})
    return {
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory": available_memory(),
        "accelerators": accelerators,
        "cuda_build": torch.version.cuda is not None,
    }


def _do(_job: str, _request: Mapping[str, Any]) -> Mapping[str, Any]:
    return facts()


if __name__ == "__main__":
    serve(_do)
