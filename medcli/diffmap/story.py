"""What happened to a made-up patient between two films: which findings came, went, grew, shrank or stayed.

The story is drawn apart from pose, exposure and devices, so that the same story can be told with any of them and the
true map never contains them.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np

from medcli.data.synthetic.anatomy import Anatomy
from medcli.data.synthetic.findings import FINDINGS, Consolidation, Findings, Nodule, draw_findings

__all__ = ["COURSES", "KINDS", "Change", "Course", "Story", "draw_story", "tell"]

Course = Literal["appear", "vanish", "grow", "shrink", "persist"]
KINDS = ("opacity", "effusion", "pneumothorax", "fluid overload", "cardiomegaly")
COURSES: tuple[Course, ...] = ("appear", "vanish", "grow", "shrink", "persist")
NAMES = {"opacity": "opacity", "effusion": "effusion", "pneumothorax": "pneumothorax", "cardiomegaly": "enlarged heart"}


@dataclass(frozen=True)
class Change:
    """One finding and its course.

    Args:
        kind: out of `KINDS`.
        course: out of `COURSES`.
        full: the finding at its larger extent.
        small: factor from the larger to the smaller extent, for `grow` and `shrink`.
    """

    kind: str
    course: Course
    full: Findings
    small: float = 0.5

    @property
    def before(self) -> Findings:
        """In the earlier image."""
        return {"appear": Findings(), "grow": scaled(self.full, self.small)}.get(self.course, self.full)

    @property
    def after(self) -> Findings:
        """In the later image."""
        return {"vanish": Findings(), "shrink": scaled(self.full, self.small)}.get(self.course, self.full)

    def describe(self) -> dict[str, Any]:
        """For params.json: kind, course, and the parameters of both states (clouds of points are left out)."""
        return {
            "kind": self.kind,
            "course": self.course,
            "before": _numbers(self.before),
            "after": _numbers(self.after),
        }


@dataclass(frozen=True)
class Story:
    """Everything that happened.

    Args:
        changes: at most one per kind.
    """

    changes: tuple[Change, ...]

    @property
    def nuisance_only(self) -> bool:
        """Whether nothing changed."""
        return all(change.course == "persist" for change in self.changes)

    @property
    def prior(self) -> Findings:
        """Everything wrong in the earlier image."""
        return merged([change.before for change in self.changes])

    @property
    def current(self) -> Findings:
        """Everything wrong in the later image."""
        return merged([change.after for change in self.changes])


def draw_story(rng: np.random.Generator, anatomy: Anatomy, *, quiet: bool) -> Story:
    """One to three findings with courses; without any change if `quiet` (then perhaps none at all).

    Args:
        rng: drawn from.
        anatomy: the patient.
        quiet: whether every finding persists.
    """
    count = int(rng.choice((0, 1, 2) if quiet else (1, 2, 3), p=(0.35, 0.4, 0.25) if quiet else (0.55, 0.3, 0.15)))
    # fluid in the lung's tissue is the rarest on its own, and the largest; opacities are what readers look for
    kinds = rng.choice(KINDS, count, replace=False, p=(0.34, 0.22, 0.16, 0.12, 0.16)).tolist()
    courses: list[Course] = []
    for position in range(count):
        moving = position == 0 or rng.random() < 0.6
        chosen: Course = COURSES[int(rng.choice(4, p=(0.3, 0.3, 0.2, 0.2)))]
        courses.append("persist" if quiet or not moving else chosen)
    changes = [tell(rng, anatomy, kind, course) for kind, course in zip(kinds, courses, strict=True)]
    return Story(tuple(_apart(changes)))


def tell(rng: np.random.Generator, anatomy: Anatomy, kind: str, course: Course) -> Change:
    """Draw one finding of a kind for a course."""
    own, size = rng.spawn(2)
    if kind == "fluid overload":
        full = Findings(congestion=float(own.uniform(0.45, 1.0)))
    else:
        full = draw_findings(own, frozenset({NAMES[kind]}), anatomy)
    if set(NAMES.values()) != set(FINDINGS):  # pragma: no cover - a generator with other findings needs other names
        raise AssertionError("the phantom generator's findings have changed")
    return Change(kind, course, full, float(size.uniform(0.3, 0.6)))


def scaled(findings: Findings, factor: float) -> Findings:
    """The same findings at a smaller extent, in the same place."""
    root = float(np.sqrt(factor))
    return Findings(
        tuple(_smaller(one, root) for one in findings.consolidations),
        tuple(replace(one, radius=one.radius * root, density=one.density * root) for one in findings.nodules),
        tuple(replace(one, height=one.height * factor) for one in findings.effusions),
        None
        if findings.pneumothorax is None
        else replace(findings.pneumothorax, gap=max(0.03, findings.pneumothorax.gap * factor)),
        1 + (findings.heart - 1) * factor,
        findings.congestion * factor,
    )


def merged(parts: list[Findings]) -> Findings:
    """Several findings in one chest."""
    return Findings(
        tuple(one for part in parts for one in part.consolidations),
        tuple(one for part in parts for one in part.nodules),
        tuple(one for part in parts for one in part.effusions),
        next((part.pneumothorax for part in parts if part.pneumothorax is not None), None),
        max([1.0, *(part.heart for part in parts)]),
        max([0.0, *(part.congestion for part in parts)]),
    )


def _smaller(one: Consolidation, root: float) -> Consolidation:
    x, y = float(np.mean(one.x)), float(np.mean(one.y))
    return replace(
        one,
        x=(x + (one.x - x) * root).astype(np.float32),
        y=(y + (one.y - y) * root).astype(np.float32),
        radius=one.radius * root,
        density=one.density * root,
    )


def _apart(changes: list[Change]) -> list[Change]:
    """Fluid and air in different pleural spaces: both in one would hide one another's border."""
    air = next((change.full.pneumothorax for change in changes if change.full.pneumothorax), None)
    if air is None:
        return changes
    return [
        replace(change, full=replace(change.full, effusions=(replace(change.full.effusions[0], left=not air.left),)))
        if change.full.effusions
        else change
        for change in changes
    ]


def _numbers(findings: Findings) -> dict[str, Any]:
    clouds = [
        {
            "x": round(float(np.mean(one.x)), 4),
            "y": round(float(np.mean(one.y)), 4),
            "radius": round(one.radius, 4),
            "density": round(one.density, 4),
        }
        for one in findings.consolidations
    ]
    nodules = [{key: round(value, 4) for key, value in asdict(one).items()} for one in _nodules(findings)]
    return {
        "consolidations": clouds,
        "nodules": nodules,
        "effusions": [asdict(one) for one in findings.effusions],
        "pneumothorax": None if findings.pneumothorax is None else asdict(findings.pneumothorax),
        "heart": findings.heart,
        "congestion": findings.congestion,
    }


def _nodules(findings: Findings) -> tuple[Nodule, ...]:
    return findings.nodules
