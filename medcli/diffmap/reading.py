"""From a pair's files to two images on one grid, with the true map and the mask of what both show."""

from __future__ import annotations

import numpy as np

from medcli.diffmap.pairs import Pair, PairImages

__all__ = ["read_pair"]


def read_pair(pair: Pair, image_size: int) -> PairImages:
    """One pair as pixels.

    Args:
        pair: from `load_pairs`.
        image_size: side of the square images.
    """
    from dataclasses import replace

    from medcli.diffmap.phantom import draw_phantom_pair

    assert pair.drawn is not None
    drawn = draw_phantom_pair(replace(pair.drawn, size=image_size))
    target = np.where(drawn.valid, drawn.target, np.float32("nan")).astype(np.float32)
    return PairImages(drawn.prior, drawn.current, target, drawn.valid)
