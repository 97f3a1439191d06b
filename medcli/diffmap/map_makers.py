"""Networks of torch that make maps for `medcli.diffmap.prediction`: that of a run, and subtraction."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medcli.diffmap.network import build_difference
from medcli.diffmap.prediction import MapMaker
from medcli.diffmap.run import difference_map, load_difference_run
from medcli.diffmap.spec import DifferenceSpec
from medcli.models.device import autocast, choose_device, choose_precision
from medcli.settings.groups import ComputeSettings

__all__ = ["SUBTRACTION", "asked_of", "subtraction", "trained"]

SUBTRACTION = "medcli/subtraction"
Image = npt.NDArray[np.float32]


def subtraction(size: int, compute: ComputeSettings) -> MapMaker:
    """The model without weights.

    Raises:
        UsageProblem: no such device.
    """
    spec = DifferenceSpec(SUBTRACTION, "difference", "signed", 1, size)
    network = build_difference(SUBTRACTION, in_channels=1, image_size=size).to(choose_device(compute.device)).eval()
    return MapMaker(asked_of(network, spec, compute), spec)


def trained(run: str, compute: ComputeSettings) -> MapMaker:
    """The model of a run.

    Raises:
        UsageProblem: no difference run, or no such device.
    """
    loaded = load_difference_run(run, choose_device(compute.device))
    given = loaded.extra.get("threshold")
    return MapMaker(
        asked_of(loaded.network, loaded.spec, compute),
        loaded.spec,
        matched=loaded.spec.register != "none",
        threshold=float(given) if isinstance(given, int | float) and 0 < given <= 1 else None,
        cautions=(loaded.caution,) if loaded.caution else (),
    )


def asked_of(
    network: nn.Module, spec: DifferenceSpec, compute: ComputeSettings
) -> Callable[[Image, Image, bool], Image]:
    """A network, in eval mode and on its device, as `MapMaker.difference`.

    Raises:
        UsageProblem: no such device, or a precision that it does not have.
    """
    device = choose_device(compute.device)
    precision = choose_precision(compute.precision, device)

    def difference(baseline: Image, followup: Image, antisymmetric: bool) -> Image:
        before, after = (
            torch.from_numpy(np.ascontiguousarray(picture))[None, None].to(device) for picture in (baseline, followup)
        )
        with torch.inference_mode(), autocast(device, precision):
            output = difference_map(network, spec, before, after, antisymmetric=antisymmetric)
        found: Image = output[0, 0].float().cpu().numpy()
        return found

    return difference
