"""A bundle of `medcli export` as what makes maps, without torch."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from medcli.bundles.difference import open_difference_bundle
from medcli.bundles.manifest import MANIFEST, bad_bundle
from medcli.diffmap.prediction import MapMaker
from medcli.diffmap.registration import HOW
from medcli.diffmap.spec import DifferenceSpec
from medcli.prediction.bundles import refuse_compute
from medcli.settings.groups import ComputeSettings

__all__ = ["bundled"]

Image = npt.NDArray[np.float32]


def bundled(path: str, compute: ComputeSettings) -> MapMaker:
    """The model of a bundle, its files compared with their hashes and its self-test computed.

    Raises:
        UsageProblem: as `open_difference_bundle`, or a device or precision that bundles do not have.
        RunFailure: this machine computes something else (code `selftest-failed`).
    """
    refuse_compute(compute)
    bundle = open_difference_bundle(path)
    held = bundle.manifest
    how = next((one for one in HOW if one == held.register), None)
    if how is None:
        raise bad_bundle(bundle.path / MANIFEST, f"its registration is `{held.register}`, not one of {', '.join(HOW)}")
    bundle.self_test()

    def difference(baseline: Image, followup: Image, antisymmetric: bool) -> Image:
        if antisymmetric != held.antisymmetric:
            raise ValueError("the graph of a bundle makes maps in one way")
        before, after = (np.ascontiguousarray(one)[None, ..., None] for one in (baseline, followup))
        found: Image = bundle.run(before, after)[0]
        return found

    spec = DifferenceSpec(
        held.model, "difference", held.map, held.in_channels, held.image_size, {}, held.mean, held.std, how
    )
    return MapMaker(difference, spec, matched=how != "none", threshold=held.threshold, antisymmetric=held.antisymmetric)
