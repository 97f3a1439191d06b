"""Maps of pairs that nobody knows the truth of: one way from two files to a map, for one pair and for many.

Reading and aligning a pair costs more than most networks do, so it runs ahead in threads while maps are made. Nothing
here needs torch: whoever makes the maps may be a network of torch or the graph of a bundle.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from medcli.bundles.manifest import is_bundle
from medcli.diffmap.checks import Concern
from medcli.diffmap.components import least_area
from medcli.diffmap.findings import Finding, Grid, Limits, findings_of
from medcli.diffmap.headers import Header, read_header
from medcli.diffmap.intensity import match
from medcli.diffmap.pairs import Pair
from medcli.diffmap.preparing import Prepared, filled, prepare
from medcli.diffmap.reading import squared_image
from medcli.diffmap.registration import Alignment, How
from medcli.diffmap.scaling import resized
from medcli.diffmap.spec import DifferenceSpec
from medcli.errors import MedcliError, RunFailure, UsageProblem
from medcli.settings.groups import ComputeSettings

__all__ = ["DEFAULT_SIZE", "FoundMap", "MapMaker", "Mapper", "Pictured", "Wanted", "map_pairs", "mapper_for"]

DEFAULT_SIZE, LARGEST_SIZE = 512, 4096  # at the largest a process takes 2.2 GiB
SHOWN = 640  # least side of pictures: a network of 64 pixels finds changes that nobody could place in 64 pixels
THRESHOLD = 0.2  # synthetic validation pairs choose 0.06, but of real films a third of every picture differs by more
MOST_THREADS = 4
Image = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """What was asked for; None takes the run's own, or the stated default.

    Args:
        run: of `diffmap train`, or a bundle made from one; None for subtraction.
        register: how the baseline is laid over the follow-up.
        antisymmetric: None for signed maps alone.
        threshold: see `Limits`.
        min_area: see `Limits`.
        dead_zone: see `Limits`.
        image_size: side of the square, for subtraction alone.
        window: DICOM display window.
        allow_mismatch: whether what speaks against a comparison is only told.
    """

    run: str | None = None
    register: How | None = None
    antisymmetric: bool | None = None
    threshold: float | None = None
    min_area: int | None = None
    dead_zone: float | None = None
    image_size: int | None = None
    window: str = "auto"
    allow_mismatch: bool = False


@dataclass(frozen=True)
class MapMaker:
    """Whoever makes maps: a network, or the graph of a bundle.

    Args:
        difference: baseline as a network sees it and follow-up, float32 [S, S] in [0, 1], and whether half the map of
            the exchanged images is taken away -> map, float32 [S, S].
        spec: how it was made.
        matched: whether it learnt from pairs whose baseline had the follow-up's grey scale.
        threshold: chosen on validation pairs, or None.
        antisymmetric: the only answer it has to that question; None where it can do both.
        cautions: what the user should read first.
    """

    difference: Callable[[Image, Image, bool], Image]
    spec: DifferenceSpec
    matched: bool = True
    threshold: float | None = None
    antisymmetric: bool | None = None
    cautions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mapper:
    """A difference model, ready.

    Args:
        maker: who makes the maps.
        how: registration.
        antisymmetric: whether half the map of the exchanged images is taken away.
        limits: of findings.
        wanted: what was asked for.
        cautions: what the user should read first.
    """

    maker: MapMaker
    how: How
    antisymmetric: bool
    limits: Limits
    wanted: Wanted
    cautions: tuple[str, ...] = ()

    @property
    def spec(self) -> DifferenceSpec:
        """How the model was made."""
        return self.maker.spec

    @property
    def signed(self) -> bool:
        """Whether its maps have signs."""
        return self.spec.map == "signed"


@dataclass(frozen=True)
class Pictured:
    """Both images as people see them: at least `SHOWN` pixels, in follow-up coordinates, without padding.

    Args:
        baseline: float32 [h, w] in [0, 1], laid over the follow-up, its grey values those of the follow-up.
        followup: float32 [h, w] in [0, 1].
        valid: bool [h, w], where both show something.
    """

    baseline: Image
    followup: Image
    valid: npt.NDArray[np.bool_]


@dataclass(frozen=True)
class FoundMap:
    """The map of one pair.

    Args:
        pair: the two files.
        values: float32 [S, S] on the model's square, NaN where not both images show something.
        grid: from the square to the follow-up's file.
        findings: the strongest first.
        prepared: the pair as the model saw it, with what the registration says about itself.
        pictured: the pair as people see it.
        headers: of both files.
        spacing: mm per pixel of the follow-up's file (row, column), or None.
        concerns: what the user should read.
    """

    pair: Pair
    values: Image
    grid: Grid
    findings: tuple[Finding, ...]
    prepared: Prepared
    pictured: Pictured
    headers: tuple[Header, Header]
    spacing: tuple[float, float] | None
    concerns: tuple[Concern, ...]

    def own_size(self) -> Image:
        """The map on the follow-up's own grid, float32 [H, W]."""
        return self.grid.unfold(self.values)


@dataclass(frozen=True)
class _Ready:
    prepared: Prepared
    pictured: Pictured
    headers: tuple[Header, Header]


def mapper_for(wanted: Wanted, compute: ComputeSettings) -> Mapper:
    """The model of a run or a bundle, or subtraction.

    Raises:
        UsageProblem: no difference run or bundle, a size or antisymmetry that it cannot have, or no such device.
        RunFailure: a bundle that computes something else on this machine.
    """
    maker = _maker(wanted, compute)
    spec = maker.spec
    if wanted.image_size not in (None, spec.image_size):
        raise UsageProblem(
            f"the run was trained with {spec.image_size} pixels and sees every image so, not with {wanted.image_size}",
            where="--image-size",
            hint="leave `--image-size` out; images of any size are brought to the run's",
            code="fixed-by-run",
        )
    how, cautions = wanted.register or spec.register, list(maker.cautions)
    if wanted.run is not None and how != spec.register:
        cautions.append(f"the run learnt from pairs with `--register {spec.register}`, and these get `{how}`")
    return Mapper(
        maker, how, _antisymmetric(wanted, maker), _limits(wanted, spec, maker.threshold), wanted, tuple(cautions)
    )


def _maker(wanted: Wanted, compute: ComputeSettings) -> MapMaker:
    if wanted.run is None:
        if wanted.image_size is not None and wanted.image_size > LARGEST_SIZE:
            raise UsageProblem(
                f"images are subtracted with at most {LARGEST_SIZE} pixels a side, not {wanted.image_size}",
                where="--image-size",
                hint="--image-size 1024",
                code="bad-size",
            )
        from medcli.diffmap.map_makers import subtraction

        return subtraction(wanted.image_size or DEFAULT_SIZE, compute)
    if is_bundle(wanted.run):
        from medcli.diffmap.bundled import bundled

        return bundled(wanted.run, compute)
    from medcli.diffmap.map_makers import trained

    return trained(wanted.run, compute)


def _antisymmetric(wanted: Wanted, maker: MapMaker) -> bool:
    signed, asked = maker.spec.map == "signed", wanted.antisymmetric
    if asked and not signed:
        raise UsageProblem(
            "the run's maps are magnitudes, which have no opposite",
            where="--antisymmetric",
            hint="leave it out",
            code="no-signs",
        )
    if asked is not None and maker.antisymmetric not in (None, asked):
        raise UsageProblem(
            "taking away half the map of the exchanged images is part of the bundle's graph",
            where="--no-antisymmetric",
            hint="the run it was exported from can do without",
            code="fixed-by-bundle",
        )
    return signed if asked is None else asked


def map_pairs(
    pairs: Sequence[Pair], mapper: Mapper, workers: int | None = None
) -> Iterator[tuple[Pair, FoundMap | MedcliError]]:
    """Maps in the order of the pairs; a pair that cannot be compared gives its error and costs the others nothing.

    Args:
        pairs: what to compare.
        mapper: with what.
        workers: threads that read and align ahead (default: the cores, at most 4); 0 for none.

    Raises:
        RunFailure: the network's output is not a number.
        UsageProblem: SimpleITK is missing, which no pair would survive.
    """
    for pair, ready in _ahead(pairs, mapper, workers):
        yield pair, ready if isinstance(ready, MedcliError) else _mapped(pair, ready, mapper)


def _limits(wanted: Wanted, spec: DifferenceSpec, own: float | None) -> Limits:
    if wanted.threshold is not None:
        threshold, source = wanted.threshold, "as asked for"
    elif own is not None:
        threshold, source = own, "chosen on the run's validation pairs"
    else:
        threshold, source = THRESHOLD, "medcli's default, chosen on no data of yours"
    dead_zone = threshold / 2 if wanted.dead_zone is None else wanted.dead_zone
    if dead_zone > threshold:
        raise UsageProblem(
            f"a dead zone of {dead_zone:g} would hide findings, which begin at {threshold:g}",
            where="--dead-zone",
            hint=f"--dead-zone {threshold / 2:g}",
            code="dead-zone",
        )
    least = least_area(spec.image_size) if wanted.min_area is None else wanted.min_area
    return Limits(threshold, least, dead_zone, source)


def _ahead(pairs: Sequence[Pair], mapper: Mapper, workers: int | None) -> Iterator[tuple[Pair, _Ready | MedcliError]]:
    threads = min(MOST_THREADS, os.cpu_count() or 1) if workers is None else workers
    if not threads or len(pairs) == 1:
        for pair in pairs:
            yield pair, _ready(pair, mapper)
        return
    waiting: deque[tuple[Pair, Future[_Ready | MedcliError]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        try:
            for pair in pairs:
                waiting.append((pair, pool.submit(_ready, pair, mapper)))
                if len(waiting) > 2 * threads:
                    first, future = waiting.popleft()
                    yield first, future.result()
            while waiting:
                first, future = waiting.popleft()
                yield first, future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _ready(pair: Pair, mapper: Mapper) -> _Ready | MedcliError:
    wanted = mapper.wanted
    try:
        prepared = prepare(
            pair,
            mapper.spec.image_size,
            mapper.how,
            matched=mapper.maker.matched,
            allow_mismatch=wanted.allow_mismatch,
            window=wanted.window,
        )
        headers = (Header(), Header()) if pair.drawn else (read_header(pair.baseline), read_header(pair.followup))
        return _Ready(prepared, _pictured(pair, prepared, mapper), headers)
    except MedcliError as problem:
        if problem.code == "missing-extra":
            raise
        return problem


def _pictured(pair: Pair, prepared: Prepared, mapper: Mapper) -> Pictured:
    size, images = mapper.spec.image_size, prepared.images
    if pair.drawn is not None or size >= SHOWN:
        baseline, followup, valid, shown = images.baseline, images.followup, images.valid, size
    else:
        shown = SHOWN
        before, before_valid, _ = squared_image(pair.baseline, shown, mapper.wanted.window)
        followup, after_valid, _ = squared_image(pair.followup, shown, mapper.wanted.window)
        warped, seen = _scaled(prepared.registered.transform, shown).apply(before, before_valid)
        valid = seen & after_valid
        same = np.array_equal(before, followup)
        baseline = warped if same else np.where(valid, match(warped, followup, valid), np.float32(0))
    grid = Grid(shown, images.sizes[1])
    return Pictured(*(grid.crop(part) for part in (baseline, followup, valid)))  # type: ignore[arg-type]


def _scaled(alignment: Alignment, size: int) -> Alignment:
    """The same alignment between squares of another size."""
    factor = size / alignment.shape[0]
    linear = alignment.matrix[:, :2]
    half = np.full(2, (factor - 1) / 2)
    offset = factor * alignment.matrix[:, 2] + half - linear @ half
    bend = None
    if alignment.bend is not None:
        bend = np.stack([resized(part, (size, size)) for part in alignment.bend]) * np.float32(factor)
    return Alignment(np.column_stack([linear, offset]), bend, (size, size))


def _mapped(pair: Pair, ready: _Ready, mapper: Mapper) -> FoundMap:
    images, concerns = ready.prepared.images, ready.prepared.concerns
    same = np.array_equal(ready.prepared.unaligned, images.followup)
    if same:
        # Of an image and itself the answer is known, whatever a network that is not antisymmetric would say.
        found = np.zeros_like(images.followup)
        if not any(one.code == "same-file" for one in concerns):
            text = "both images hold the same pixels, so the map is zero everywhere"
            concerns = (*concerns, Concern("same-pixels", "warn", text))
    else:
        found = mapper.maker.difference(filled(images), images.followup, mapper.antisymmetric)
    if not np.isfinite(found).all():
        raise RunFailure(
            f"the network's map of `{pair.identifier}` is not a number",
            hint="try `--precision fp32`",
            code="not-finite",
        )
    values = np.where(images.valid, found, np.float32("nan")).astype(np.float32)
    grid = Grid(mapper.spec.image_size, images.sizes[1])
    spacing = pair.spacing or ready.headers[1].spacing
    views = (ready.headers[1].view or pair.views[1], ready.headers[1])
    findings = findings_of(
        values,
        grid,
        mapper.limits,
        spacing=spacing,
        mirrored=ready.headers[1].rows_run == "R",
        frontal=replace(views[1], view=views[0]).plane != "lateral",
    )
    return FoundMap(pair, values, grid, findings, ready.prepared, ready.pictured, ready.headers, spacing, concerns)
