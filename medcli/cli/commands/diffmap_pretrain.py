"""`medcli diffmap pretrain`: an encoder that knows radiographs before it sees the first pair."""

from __future__ import annotations

from medcli.cli.commands.diffmap_train import carry_out
from medcli.cli.options import Flags
from medcli.errors import ExitCode

__all__ = ["pretrain"]


def pretrain(flags: Flags) -> ExitCode | None:
    """Teach an encoder to fill in hidden parts of radiographs; neither labels nor pairs are needed.

    Takes a folder of images, the images of a set of pairs, or a built-in set. The loss counts hidden pixels alone.
    `medcli diffmap train --encoder-from RUN` then starts from this encoder.

    Examples:
        medcli diffmap pretrain --data synthetic/chest --limit 100 --image-size 64 --epochs 5
        medcli diffmap pretrain --data xrays/ --image-size 256 --mask-mode checkerboard --mask-patches 8
        medcli diffmap pretrain --data xrays/ --arch-opt encoder=resnet50 --adversarial --fourier-weight 0.3
    """
    from medcli.diffmap.plan import PRETRAIN

    return carry_out(PRETRAIN, flags)
