"""`diffmap predict` on pairs of large PNGs beside its parts alone: decoding, aligning with the map, and writing.

Parts run on one thread, one after another, on what the part before left in memory; the whole also tries whether an
image is turned, mirrored or inverted, and prepares pictures. With `--workers` threads it reads and aligns ahead while
maps are made and written. Bar: faster than with none; on two idle cores the largest part is what to come near to.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from medcli.diffmap.outputs import DEFAULT_FORMATS, claim, write_map
from medcli.diffmap.pairs import Drawn, Pair
from medcli.diffmap.phantom import draw_phantom_pair
from medcli.diffmap.prediction import FoundMap, Mapper, Wanted, map_pairs, mapper_for
from medcli.diffmap.preparing import align, filled
from medcli.diffmap.reading import read_pair
from medcli.settings.groups import ComputeSettings

SIDE, DRAWN = 2000, 256


def draw(folder: Path, count: int) -> list[Pair]:
    """Phantom pairs enlarged to `SIDE` pixels, with noise of their own, so that they compress as films do."""
    random = np.random.default_rng(0)
    pairs = []
    for number in range(count):
        drawn = draw_phantom_pair(Drawn(0, number % 10, DRAWN))
        paths = [folder / f"{number:03}-{name}.png" for name in ("prior", "current")]
        for path, image in zip(paths, (drawn.prior, drawn.current), strict=True):
            large = Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
            noisy = np.asarray(large) + random.normal(0, 0.01, (SIDE, SIDE)).astype(np.float32)
            Image.fromarray(np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)).save(path)
        pairs.append(Pair(f"{number:03}", *map(str, paths)))
    return pairs


def whole(pairs: Sequence[Pair], mapper: Mapper, workers: int, folder: Path) -> tuple[float, list[FoundMap]]:
    """As the command does it; seconds and maps."""
    start, maps = time.perf_counter(), []
    for pair, found in map_pairs(pairs, mapper, workers):
        if not isinstance(found, FoundMap):
            raise found
        write(found, mapper, folder / pair.identifier)
        maps.append(found)
    return time.perf_counter() - start, maps


def write(found: FoundMap, mapper: Mapper, place: Path) -> None:
    claim(place, overwrite=True)
    write_map(found, mapper, place, DEFAULT_FORMATS, 0.3)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", help="of `diffmap train`; subtraction at 512 pixels without")
    parser.add_argument("--pairs", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(1)
    mapper = mapper_for(Wanted(run=options.run), ComputeSettings(device="cpu"))
    with tempfile.TemporaryDirectory() as made:
        pairs = draw(Path(made), options.pairs)
        start = time.perf_counter()
        read = [read_pair(pair, mapper.spec.image_size) for pair in pairs]
        decoding = time.perf_counter() - start
        start = time.perf_counter()
        for images in read:
            aligned = align(images, mapper.how, matched=mapper.maker.matched).images
            mapper.maker.difference(filled(aligned), aligned.followup, mapper.antisymmetric)
        mapping = time.perf_counter() - start
        alone, maps = whole(pairs, mapper, 0, Path(made))
        start = time.perf_counter()
        for found in maps:
            write(found, mapper, Path(made) / found.pair.identifier)
        writing = time.perf_counter() - start
        ahead, _ = whole(pairs, mapper, options.workers, Path(made))
    total, largest = decoding + mapping + writing, max(decoding, mapping, writing)
    print(
        f"{len(pairs)} pairs of {SIDE} x {SIDE} px, {mapper.spec.model} at {mapper.spec.image_size} px\n"
        f"  decoding {decoding:.1f} s, aligning and map {mapping:.1f} s, writing {writing:.1f} s: {total:.1f} s\n"
        f"  predict --workers 0: {alone:.1f} s, {alone / total:.2f} x the sum\n"
        f"  predict --workers {options.workers}: {ahead:.1f} s, {ahead / alone:.2f} x without, "
        f"{ahead / total:.2f} x the sum, {ahead / largest:.2f} x the largest part"
    )
    fine = ahead < alone
    print("ok" if fine else "FAILED")
    return 0 if fine else 1


if __name__ == "__main__":
    raise SystemExit(main())
