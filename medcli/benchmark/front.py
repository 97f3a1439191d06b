"""The Pareto front: what no other is at once faster and better than."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["pareto_front"]


def pareto_front(points: Sequence[tuple[float, float]], *, higher_is_better: bool) -> frozenset[int]:
    """Positions of the points that no other dominates.

    A point dominates another if it is no worse in both values and better in one.

    Args:
        points: (cost, value); a lower cost is better.
        higher_is_better: whether that holds for the value too, or a lower one is better.
    """
    sign = -1.0 if higher_is_better else 1.0
    order = sorted(range(len(points)), key=lambda index: (points[index][0], sign * points[index][1]))
    front, best, cost = set(), float("inf"), float("nan")
    for index in order:
        value = sign * points[index][1]
        if value < best or (value == best and points[index][0] == cost):
            front.add(index)
            best, cost = value, points[index][0]
    return frozenset(front)
