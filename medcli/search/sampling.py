"""How the next trial is chosen, and which trials are stopped early."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner, HyperbandPruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.samplers import BaseSampler, CmaEsSampler, GridSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, Trial, TrialState

from medcli.errors import UsageProblem
from medcli.search.space import Choices, Dimension

__all__ = ["make_pruner", "make_sampler", "suggest"]


def suggest(trial: Trial, space: Sequence[Dimension]) -> dict[str, Any]:
    """The settings of a trial."""
    values: dict[str, Any] = {}
    for one in space:
        if isinstance(one, Choices):
            values[one.name] = trial.suggest_categorical(one.name, one.values)
        elif one.whole:
            step = 1 if one.step is None else int(one.step)
            values[one.name] = trial.suggest_int(one.name, int(one.low), int(one.high), step=step, log=one.log)
        else:
            values[one.name] = trial.suggest_float(one.name, one.low, one.high, step=one.step, log=one.log)
    return values


class ByTrial(BaseSampler):
    """A sampler whose draws depend on the seed and the trial's number alone.

    Processes that share a study then never draw alike, and a continued study draws as if it had not been stopped.

    Args:
        kind: `tpe`, `random` or `cmaes`.
        seed: the user's seed.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self._kind = kind
        self._seed = seed
        self._made: tuple[int, BaseSampler] | None = None

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        if self._made is None or self._made[0] != trial.number:
            seed = int(np.random.SeedSequence([self._seed, trial.number]).generate_state(1)[0])
            self._made = trial.number, self._make(seed)
        return self._made[1]

    def _make(self, seed: int) -> BaseSampler:
        match self._kind:
            case "random":
                return RandomSampler(seed=seed)
            case "cmaes":
                return CmaEsSampler(seed=seed, warn_independent_sampling=False)
            case _:
                return TPESampler(seed=seed)

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return self._of(trial).infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._of(trial).sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        return self._of(trial).sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self._of(trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._of(trial).after_trial(study, trial, state, values)


class Grid(GridSampler):
    """Every combination once. Optuna's own stops the study by itself, which a repeated trial does not survive."""

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        pass


def make_sampler(kind: str, seed: int, space: Sequence[Dimension]) -> BaseSampler:
    """How the next trial is chosen.

    Raises:
        UsageProblem: a sampler that cannot work in this space.
    """
    if kind == "grid":
        endless = [one.name for one in space if not isinstance(one, Choices)]
        if endless:
            raise UsageProblem(
                f"a grid needs a list for every setting, and {', '.join(f'`{name}`' for name in endless)} has a range",
                where="--search-sampler grid",
                hint=f"list the values in a file for `--space`: `{endless[0]} = [1e-4, 3e-4, 1e-3]`"
                if endless[0] == "lr"
                else "list the values in a file for `--space`, or use `--search-sampler tpe`",
                code="sampler-does-not-fit",
            )
        return Grid({one.name: one.values for one in space if isinstance(one, Choices)}, seed=seed)
    if kind == "cmaes" and sum(not isinstance(one, Choices) for one in space) < 2:
        raise UsageProblem(
            "CMA-ES moves along ranges and needs two of them; this space has "
            f"{sum(not isinstance(one, Choices) for one in space)}",
            where="--search-sampler cmaes",
            hint="use `--search-sampler tpe`, or give ranges in a file for `--space`",
            code="sampler-does-not-fit",
        )
    return ByTrial(kind, seed)


def make_pruner(kind: str, epochs: int) -> BasePruner:
    """Which trials are stopped early.

    Args:
        kind: as in `--pruner`.
        epochs: of a whole trial.
    """
    match kind:
        case "median":
            # Four whole trials to compare with; the first tenth of a training says little about its end.
            return MedianPruner(n_startup_trials=4, n_warmup_steps=max(1, epochs // 10), n_min_trials=2)
        case "halving":
            return SuccessiveHalvingPruner(min_resource=1, reduction_factor=3)
        case "hyperband":
            return HyperbandPruner(min_resource=1, max_resource=max(1, epochs), reduction_factor=3)
        case _:
            return NopPruner()
