"""From a network's graph to a smaller one that answers nearly as well, or to a refusal that says what was tried."""

from __future__ import annotations

import errno
import math
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medcli.errors import ExitCode, MedcliError, RunFailure
from medcli.evaluation.proportions import finite
from medcli.export.run_cases import RunCases
from medcli.export.shrinking import (
    LADDER,
    Extent,
    calibrated_ranges,
    network_bytes,
    prepare,
    shrunk_share,
    write_dynamic,
    write_half,
    write_static,
)
from medcli.export.source import Source
from medcli.export.weighing import Change, Latency, answers, changes, distance, latency, surely_kept, worst_change
from medcli.export.wishes import MAX_DROP, Kind
from medcli.runs.directory import writing

__all__ = ["HARDLY", "Attempt", "Quantised", "TooMuchLost", "quantise"]

RESAMPLES = 1000

HARDLY = 0.5
"""Share of the weights below which it is said that little was shrunk."""

SLOWER = 1.2
"""Times as long that are more than the noise of a median."""

BATCH = (
    "with `int8-dynamic` an answer depends a little on the other pictures of its batch, which share one range; "
    "`--batch-size 1` makes answers repeatable"
)


class TooMuchLost(RunFailure):
    """Every smaller network answers too badly; nothing was left behind."""

    exit_code = ExitCode.LIMIT


@dataclass(frozen=True)
class Attempt:
    """One way that was tried.

    Args:
        way: what it was.
        changes: of the figures; without intervals but that of AUC.
        problem: why there is no network, instead of figures.
        moved: see `medcli.export.weighing.distance`.
    """

    way: str
    changes: tuple[Change, ...] = ()
    problem: str = ""
    moved: float = math.inf

    @property
    def fine(self) -> bool:
        """Whether nothing lost too much."""
        return not self.problem and worst_change(self.changes) is None

    @property
    def sure(self) -> bool:
        """Whether that is so within the interval of AUC too."""
        return not self.problem and surely_kept(self.changes)

    def to_dict(self) -> dict[str, Any]:
        """JSON values."""
        drops = {one.figure: one.to_dict()["drop"] for one in self.changes}
        return {
            "way": self.way,
            "drops": drops,
            "logits_moved": finite(self.moved),
            "fine": self.fine,
            "sure": self.sure,
            "problem": self.problem or None,
        }


@dataclass(frozen=True)
class Quantised:
    """A smaller network that is good enough.

    Args:
        network: its file.
        kind: what was asked for.
        way: how it was made.
        tried: every attempt, in order.
        changes: of the figures on validation cases, with paired 95 % intervals.
        before: bytes of the network.
        after: bytes of the smaller one.
        share: of the weights, that are stored in fewer bits.
        latency: of both.
        left_out: pictures that cannot be read.
        calibrated_on: pictures of the training split that gave the ranges; 0 where none were needed.
    """

    network: Path
    kind: Kind
    way: str
    tried: tuple[Attempt, ...]
    changes: tuple[Change, ...]
    before: int
    after: int
    share: float
    latency: Latency
    left_out: int = 0
    calibrated_on: int = 0

    @property
    def cautions(self) -> list[str]:
        """What somebody who wanted a smaller or faster network should know."""
        found = []
        for one in self.changes[:1] if all(not each.sure for each in self.tried) else ():
            most = 0.0 - one.difference.low
            if not most <= one.allowed:
                which = "; of the ways tried, the one whose answers moved least was kept" if len(self.tried) > 1 else ""
                found.append(
                    f"on {one.difference.n} validation images {one.figure} may lose up to {most:.4f} (95 % interval), "
                    f"and {one.allowed:g} is allowed{which}"
                )
        if self.share < HARDLY:
            hint = "" if self.kind == "int8-static" else "; `int8-static` shrinks convolutions too"
            found.append(f"`{self.kind}` stores {self.share:.1%} of this network's weights in fewer bits{hint}")
        if self.latency.after > SLOWER * self.latency.before:
            found.append(
                f"on this machine the quantised network is slower: {self.latency.after:.1f} ms for one picture, not "
                f"{self.latency.before:.1f} ms"
            )
        if self.kind == "int8-dynamic" and self.share > 0:
            found.append(BATCH)
        return found

    def lines(self) -> list[str]:
        """What was kept, in size, speed and figures."""
        kept = f"{self.kind}: " if self.way == self.kind else f"{self.kind} ({self.way}): "
        speed = self.latency
        lines = [
            f"  {kept}network {self.before / 1e6:.1f} -> {self.after / 1e6:.1f} MB ({self.share:.1%} of the weights in "
            f"fewer bits), one picture {speed.before:.1f} -> {speed.after:.1f} ms (median of {speed.rounds}, in turns)"
        ]
        for one in self.changes:
            values = one.to_dict()
            interval = "" if values["low"] is None else f" [{values['low']:+.4f}, {values['high']:+.4f}]"
            lines.append(
                f"  {one.figure} on {one.difference.n} validation images {one.difference.first:.4f} -> "
                f"{one.difference.second:.4f}: {one.drop:+.4f} lost{interval}, {one.allowed:.4f} allowed"
            )
        moved = next(one.moved for one in self.tried if one.way == self.way)
        lines.append(f"  its logits moved by {moved:.2%} of how much they differ from case to case")
        return lines + [f"  tried too: {one.way}: {sentence(one)}" for one in self.tried if one.way != self.way]

    def to_dict(self) -> dict[str, Any]:
        """JSON values, the fact `quantization` of a bundle."""
        return {
            "way": self.way,
            "tried": [{**one.to_dict(), "kept": one.way == self.way} for one in self.tried],
            "validation": [one.to_dict() for one in self.changes],
            "network_bytes": {"before": self.before, "after": self.after},
            "share_of_weights": round(self.share, 4),
            "latency_ms": {
                "before": round(self.latency.before, 3),
                "after": round(self.latency.after, 3),
                "rounds": self.latency.rounds,
                "of": "the network alone, one picture, both on the machine that exported",
            },
            "calibration_images": self.calibrated_on,
            "unreadable_images": self.left_out,
            "note": "chosen by these validation cases, so test cases may lose a little more",
            "depends_on_batch": self.kind == "int8-dynamic" and self.share > 0,
        }


def quantise(
    source: Source,
    cases: RunCases,
    network: Path,
    work: Path,
    kind: Kind,
    *,
    max_drop: float = MAX_DROP,
    batch_size: int = 32,
    tell: Callable[[str], None] = lambda _: None,
) -> Quantised:
    """Write a smaller network, the first of several ways (static int8) that surely loses no more than allowed.

    Sure is what the interval of AUC says too: on 300 cases a network that gained by luck lost .008 on others. Where no
    way is, the one whose logits moved least is kept, of those that lose no more on these cases.

    Args:
        source: the run, for its target and calibrator.
        cases: of `read_run_cases`.
        network: as `medcli.export.graph.write_network` wrote it.
        work: an empty folder; the result is in it.
        kind: the way.
        max_drop: most that AUC and accuracy may fall on the validation cases.
        batch_size: of the validation cases.
        tell: told what is tried.

    Raises:
        TooMuchLost: no way is good enough (exit status 4, code `too-much-lost`).
        RunFailure: ONNX Runtime cannot make or run the smaller network (code `not-quantizable`), or files cannot be
            written.
    """
    original = answers(network, cases.validation, batch_size)
    result = work / "model.onnx"
    tried: list[Attempt] = []
    best: Attempt | None = None
    for way, write in _ways(network, cases, work, kind):
        tell(f"trying {way}")
        for old in (result, result.with_name(f"{result.name}.data")):
            old.unlink(missing_ok=True)
        try:
            # A full disk is no fault of this way: the others would meet it too.
            with writing(work):
                write(result)
                logits = answers(result, cases.validation, batch_size)
        except MedcliError as problem:
            if problem.code != "bad-graph":
                raise
            tried.append(Attempt(way, problem=problem.message))
        except Exception as problem:
            _refuse_full_disk(work, network, problem)
            # The tools raise what they like, for operators they do not know.
            first = str(problem).splitlines()[0][:200] if str(problem) else type(problem).__name__
            tried.append(Attempt(way, problem=first))
        else:
            this = Attempt(way, changes(source, cases, original, logits, max_drop), moved=distance(original, logits))
            tried.append(this)
            tell(f"{way}: {sentence(this)}")
            if this.sure or (this.fine and (best is None or this.moved < best.moved)):
                best, found = this, logits
                _move(result, work / "kept")
            if this.sure:
                break
    if best is None:
        raise _refusal(kind, tried, max_drop)
    _move(work / "kept" / result.name, work)
    return Quantised(
        result,
        kind,
        best.way,
        tuple(tried),
        changes(source, cases, original, found, max_drop, resamples=RESAMPLES),
        network_bytes(network),
        network_bytes(result),
        shrunk_share(result),
        latency(network, result, cases.validation[:1]),
        cases.left_out,
        len(cases.training),
    )


def _refuse_full_disk(work: Path, network: Path, problem: Exception) -> None:
    """Some of the tools write half a file without a word, and stumble over it later."""
    if shutil.disk_usage(work).free < network_bytes(network):
        with writing(work):
            raise OSError(errno.ENOSPC, "No space left on device") from problem


def _move(network: Path, folder: Path) -> None:
    """A graph and the weights beside it, in the place of those that are there."""
    with writing(folder):
        folder.mkdir(exist_ok=True)
        for name in (network.name, f"{network.name}.data"):
            (folder / name).unlink(missing_ok=True)
            if network.with_name(name).is_file():
                network.with_name(name).rename(folder / name)


Write = Callable[[Path], None]


def _ways(network: Path, cases: RunCases, work: Path, kind: Kind) -> Sequence[tuple[str, Write]]:
    if kind == "fp16":
        return [("fp16", lambda to: write_half(network, to))]
    prepared = work / "prepared.onnx"
    ready: list[bool] = []

    def shaped() -> Path:
        if not ready:
            prepare(network, prepared)
            ready.append(True)
        return prepared

    if kind == "int8-dynamic":
        return [("int8-dynamic", lambda to: write_dynamic(shaped(), to))]
    ranges: dict[str, Any] = {}

    def static(calibration: Any, extent: Extent) -> Write:
        def write(to: Path) -> None:
            if calibration not in ranges:
                ranges[calibration] = calibrated_ranges(shaped(), cases.training, calibration, work)
            write_static(prepared, to, ranges[calibration], extent)

        return write

    return [(str(rung), static(rung.calibration, rung.extent)) for rung in LADDER]


def sentence(attempt: Attempt) -> str:
    """What came of it."""
    if attempt.problem:
        return attempt.problem
    figures = ", ".join(f"{one.figure} {one.drop:+.4f} lost of {one.difference.first:.4f}" for one in attempt.changes)
    return f"{figures}; logits moved by {attempt.moved:.2%} of their spread"


def _refusal(kind: Kind, tried: Sequence[Attempt], max_drop: float) -> RunFailure:
    rows = "\n".join(f"  {one.way}: {sentence(one)}" for one in tried)
    if all(one.problem for one in tried):
        return RunFailure(
            f"this network cannot be made `{kind}`: {tried[-1].problem}",
            where="--quantize",
            hint="`--quantize none`, or another kind",
            code="not-quantizable",
        )
    others = {"int8-static": "`--quantize fp16`", "int8-dynamic": "`--quantize fp16`", "fp16": "`--quantize none`"}
    return TooMuchLost(
        f"as `{kind}` the network loses more than {max_drop:g} on the validation images; tried:\n{rows}",
        where="--max-drop",
        hint=f"nothing was kept; a larger `--max-drop` accepts the loss, {others[kind]} loses less",
        code="too-much-lost",
    )
