"""A set larger than the memory allowed for images trains without being loaded whole.

Two child processes train the same network on the same folder of images: one may keep decoded images, the other may not.
Printed are the peak resident sizes; the second must stay below the first by most of what the decoded images take.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image

IMAGES, SIZE = 1200, 256
DECODED = IMAGES * SIZE * SIZE * 3 * 4
SHARE = 0.6
"""Of the decoded size that streaming must save; the rest is workers, buffers and the allocator's slack."""


def make_folder(folder: Path) -> None:
    """Colour images of another size than the network's, so that decoded ones are float32."""
    random = np.random.default_rng(0)
    for index in range(IMAGES):
        place = folder / ("a" if index % 2 else "b") / f"{index:04d}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 255, (48, 48, 3), dtype=np.uint8)).save(place)


def peak(folder: Path, out: Path, *flags: str) -> int:
    """Peak resident bytes of one training in a child process of its own."""
    words = ["train", "timm/test_resnet", "--data", str(folder), "--image-size", str(SIZE), "--epochs", "1"]
    words += ["--batch-size", "16", "--workers", "0", "--split", "0.9,0.05,0.05", "--out", str(out), "-q", *flags]
    code = (
        "import json, resource, sys; from medcli.cli.app import run; sys.argv = ['medcli', *json.loads(sys.argv[1])]; "
        "code = run(); print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, file=sys.stderr); sys.exit(code)"
    )
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "XDG_CACHE_HOME": str(out.parent / "cache")}
    done = subprocess.run(
        [sys.executable, "-c", code, json.dumps(words)], env=environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return int(done.stderr.splitlines()[-1]) * (1 if sys.platform == "darwin" else 1024)


def main() -> int:
    """Print the peaks; exit 1 when the limited run is not clearly smaller."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "images"
        make_folder(folder)
        whole = peak(folder, Path(name) / "whole", "--cache", "memory")
        disk = peak(folder, Path(name) / "disk", "--cache", "disk")
        stream = peak(folder, Path(name) / "stream", "--cache", "off")
    gib = 2**30
    print(f"{IMAGES} images of {SIZE} px, decoded {DECODED / gib:.2f} GiB; peak of the whole process:")
    for how, size in (("in memory", whole), ("on disk", disk), ("decoded every epoch", stream)):
        print(f"  {how:<20} {size / gib:.2f} GiB")
    saved = whole - max(disk, stream)
    print(f"  saved {saved / gib:.2f} GiB (bar {SHARE * DECODED / gib:.2f})")
    return int(saved < SHARE * DECODED)


if __name__ == "__main__":
    raise SystemExit(main())
