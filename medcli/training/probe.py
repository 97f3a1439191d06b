"""The head fitted to convergence on the features of a backbone: the start from which `lp-ft` tunes everything.

A random head sends noise into a pretrained backbone; a converged one lets it keep what it knows (Kumar et al., ICLR
2022).
"""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from medcli.errors import UsageProblem
from medcli.models.heads import Head
from medcli.prediction.feature_cache import FeatureCache
from medcli.prediction.features import PLAIN
from medcli.training.frozen import extract, extractor_of
from medcli.training.losses import Criterion
from medcli.training.plan import Plan

if TYPE_CHECKING:
    from medcli.training.engine import Prepared

__all__ = ["STRENGTHS", "Probe", "fit_head", "probe_head", "probes", "refuse_spread_weights"]

STRENGTHS = (1.0, 0.1, 1e-2, 1e-3, 1e-4, 1e-5)
"""Strengths of the L2 penalty that the validation split chooses from, strongest first."""

STEPS = 1000
SMALL_GRADIENT = 1e-5
SETTLED = 1e-3
"""Largest component of the gradient at which a fit counts as converged; float32 losses resolve little below it."""


@dataclass(frozen=True)
class Probe:
    """How a head was fitted.

    Args:
        strength: of the penalty `strength / 2 * |weights|^2` on standardised features, beside the mean loss.
        iterations: of L-BFGS at that strength.
        gradient: largest component of the gradient at its end.
        loss: on validation, which chose the strength.
    """

    strength: float
    iterations: int
    gradient: float
    loss: float

    def sentence(self) -> str:
        """For the user."""
        settled = "converged" if self.gradient <= SETTLED else "did not converge"
        return (
            f"probe: the head {settled} in {self.iterations} iterations of L-BFGS (gradient {self.gradient:.1e}); "
            f"L2 strength {self.strength:g} chosen on val (loss {self.loss:.4f})"
        )


def probes(plan: Plan) -> bool:
    """Whether a training begins with a head fitted to convergence."""
    return plan.strategy is not None and plan.strategy.strategy == "lp-ft" and not plan.strategy.probe_epochs


def refuse_spread_weights(plan: Plan, sharded: bool) -> None:
    """See before anything is written that the backbone can be run by itself.

    Raises:
        UsageProblem: its parameters will be spread over several processes.
    """
    if sharded and probes(plan):
        raise UsageProblem(
            "the probe of `lp-ft` needs a whole backbone in every process, and FSDP spreads it",
            where="--strategy lp-ft",
            hint="train the head for some epochs instead: `--probe-epochs 5`",
            code="probe-needs-whole-weights",
        )


def probe_head(
    prepared: Prepared, *, cache: FeatureCache | None, progress: Callable[[str, int, int], None] | None = None
) -> tuple[str, ...]:
    """Fit the network's head, in place, on features of the images as they are; returns what was done.

    Args:
        prepared: a training before its first step.
        cache: where features are kept; None keeps nothing.
        progress: told ("features of SPLIT:", images done, images in all).

    Raises:
        RunFailure: features that are no numbers.
    """
    classifier, parts = prepared.built.classifier, prepared.parts
    extractor = extractor_of(prepared)
    data: list[tuple[Tensor, Tensor]] = []
    notes: list[str] = []
    for split in ("train", "val"):
        batches = prepared.batches[split]
        work = partial(extract, extractor, batches, PLAIN, cache, split, progress)
        rows, _, said = parts.team.one_at_first(work)
        notes += said
        labels = torch.from_numpy(np.ascontiguousarray(batches.samples.labels)).to(prepared.device)
        data.append((rows.to(prepared.device), labels))
    probe = fit_head(classifier.medcli_head, data[0], data[1], parts.criterion)
    # All processes go on from the very same numbers.
    fitted = {name: value.cpu() for name, value in classifier.medcli_head.state_dict().items()}
    classifier.medcli_head.load_state_dict(parts.team.from_first(fitted))
    if parts.ema is not None:
        average = parts.ema.module.get_submodule("medcli_head")
        average.load_state_dict(classifier.medcli_head.state_dict())
    classifier.train(classifier.training)  # the pass put frozen blocks into the mode of the others
    return (*notes, probe.sentence())


def fit_head(head: Head, train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], criterion: Criterion) -> Probe:
    """Fit the linear layer (and the thresholds of ordinal heads) of a head, in place, without dropout.

    Args:
        head: its LayerNorm, if any, stays as it is.
        train: features [n, D] and labels [n, ...], on the head's device.
        val: the same, for the choice of the strength.
        criterion: (raw outputs, labels) -> mean loss.
    """
    twin = deepcopy(head).eval()
    with torch.no_grad():
        inputs, judged = twin.norm(train[0]), twin.norm(val[0])
        mean, scale = inputs.mean(dim=0), inputs.std(dim=0, correction=0)
        # A feature that never varies says nothing; dividing by its rounding noise would make it shout.
        scale = torch.where(scale > 1e-6 * inputs.abs().amax(dim=0).clamp_min(1e-6), scale, torch.ones_like(scale))
        inputs, judged = (inputs - mean) / scale, (judged - mean) / scale
        twin.norm = nn.Identity()
        nn.init.zeros_(twin.linear.weight)
    learnt = list(twin.parameters())
    best: tuple[Probe, dict[str, Tensor]] | None = None
    for strength in STRENGTHS:
        probe = _converge(twin, learnt, inputs, train[1], criterion, strength)
        with torch.no_grad():
            loss = float(criterion(twin(judged).float(), val[1]))
        if best is None or loss < best[0].loss:
            found = Probe(strength, *probe, loss)
            best = (found, {name: value.detach().clone() for name, value in twin.state_dict().items()})
    assert best is not None  # there is at least one strength
    twin.load_state_dict(best[1])
    with torch.no_grad():
        weight = twin.linear.weight / scale
        shift = weight @ mean
        head.linear.weight.copy_(weight)
        if head.linear.bias is not None:
            head.linear.bias.copy_(twin.linear.bias - shift)
        if head.first_threshold is not None:
            head.load_state_dict({name: best[1][name] for name in ("first_threshold", "threshold_steps")}, strict=False)
            head.first_threshold.sub_(shift.squeeze(0))
    return best[0]


def _converge(
    twin: Head, learnt: list[nn.Parameter], inputs: Tensor, labels: Tensor, criterion: Criterion, strength: float
) -> tuple[int, float]:
    """Minimise from where the last strength ended; iterations and the largest component of the gradient."""
    optimizer = torch.optim.LBFGS(
        learnt,
        max_iter=STEPS,
        tolerance_grad=SMALL_GRADIENT,
        tolerance_change=1e-12,
        history_size=20,
        line_search_fn="strong_wolfe",
    )

    def objective() -> Tensor:
        optimizer.zero_grad()
        value = criterion(twin(inputs).float(), labels) + 0.5 * strength * twin.linear.weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(objective)  # type: ignore[no-untyped-call]
    objective()
    gradient = max(float(value.grad.abs().max()) for value in learnt if value.grad is not None)
    return int(optimizer.state[learnt[0]]["n_iter"]), gradient
