"""What is being checked: one architecture or difference model, and how it is built small, large or weightless.

Importing this needs no torch, so that tests are collected without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from medcli.errors import MedcliError, UsageProblem
from medcli.plugin import ArchitectureCard, SizeRule
from medcli.registry.cards import read_card
from medcli.registry.discovery import ARCHITECTURES, DIFFERENCE_MODELS, Entry, Registry, find, load_factory
from medcli.testing.checks.verdict import CheckFailed, fail

if TYPE_CHECKING:
    from torch import Tensor, nn

__all__ = ["Package", "Plan", "Subject", "same", "subjects_of"]

_NATIVE, _SMALL = 224, 64
_UNKNOWN = (
    "no installed distribution, architecture or difference model is called `{target}`; install it first, for instance "
    "with `pip install --editable .` in its folder"
)


@dataclass(frozen=True)
class Plan:
    """How dearly an author lets the checks be made.

    Args:
        options: architecture options of the network that runs (forward, backward, export); facts of the card are always
            checked on the network it describes, without memory for weights.
        image_size: side of the images it runs on; by default the valid one nearest to 64.
        seconds: processor time for import, build and one forward pass at the card's size; None for an allowance that
            grows with the parameters.
        megabytes: memory for the same, beyond what torch takes.
    """

    options: Mapping[str, Any] = field(default_factory=dict)
    image_size: int | None = None
    seconds: float | None = None
    megabytes: float | None = None


@dataclass(frozen=True)
class Package:
    """What was asked for, as far as names tell: a distribution, or one entry of it.

    Args:
        target: as asked.
        registry: what is installed.
        entries: those that `target` means; empty where nothing is installed under that name.
        problem: why there are none.
        unknown: whether nothing at all is installed under that name.
    """

    target: str
    registry: Registry
    entries: tuple[Entry, ...]
    problem: str = ""
    unknown: bool = False

    @property
    def distributions(self) -> tuple[str, ...]:
        """The distributions concerned."""
        return tuple(sorted({entry.distribution for entry in self.entries}))


@dataclass(frozen=True)
class Subject:
    """One entry and the ways to build it. Networks come from the factory itself, as the commands get them."""

    entry: Entry
    plan: Plan = Plan()
    _bench: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def is_difference(self) -> bool:
        """Whether it is a difference model."""
        return self.entry.group == DIFFERENCE_MODELS

    @cached_property
    def card(self) -> ArchitectureCard | None:
        """Its card; None where there is none, or where it is broken, which is a check of its own."""
        try:
            return read_card(self.entry)
        except MedcliError:
            return None

    @property
    def rule(self) -> SizeRule:
        """Which sides it takes."""
        return self.card.size if self.card else SizeRule()

    @property
    def channels(self) -> int:
        """Channels it was made for."""
        return (self.card.in_channels if self.card else None) or 3

    @property
    def native_size(self) -> int:
        """The side it was made for, in pixels."""
        return (self.card.input_size if self.card else None) or _NATIVE

    @property
    def small_size(self) -> int:
        """The side at which it runs here, in pixels."""
        return self.plan.image_size or self.rule.nearest(min(_SMALL, self.native_size), self.plan.options)

    def build(
        self, *, channels: int | None = None, size: int | None = None, seed: int = 0, outline: bool = False, **more: Any
    ) -> nn.Module:
        """A new network in eval mode.

        Args:
            channels: of the images; the card's by default.
            size: side in pixels; the card's by default.
            seed: of torch's global generator, which is put back afterwards.
            outline: build on the meta device: shapes and names without memory for weights.
            **more: further keywords of the factory.

        Raises:
            CheckFailed: the factory raised, or gave no `nn.Module`. A `UsageProblem` of the factory is let through.
        """
        import torch
        from torch import nn

        factory = load_factory(self.entry)
        keywords: dict[str, Any] = {"in_channels": channels or self.channels, "image_size": size or self.native_size}
        with torch.random.fork_rng(devices=[]), torch.device("meta" if outline else "cpu"):
            torch.default_generator.manual_seed(seed)
            try:
                network: object = factory(**{**keywords, **more})
            except UsageProblem:
                raise
            except (Exception, SystemExit) as error:
                said = ", ".join(f"{key}={value!r}" for key, value in {**keywords, **more}.items())
                where = " on the meta device" if outline else ""
                raise CheckFailed(f"building with {said}{where} raised {type(error).__name__}: {error}") from error
        if not isinstance(network, nn.Module):
            fail(f"the factory gave a {type(network).__name__}, not an `nn.Module`")
        return network.eval()

    def small(self, *, seed: int = 0) -> nn.Module:
        """A new network of the size at which it runs here."""
        return self.build(size=self.small_size, seed=seed, **self.plan.options)

    def network(self) -> nn.Module:
        """The small network that all checks share which leave it as it is; kept for as long as this subject lives."""
        if "network" not in self._bench:
            self._bench["network"] = self.small()
        network: nn.Module = self._bench["network"]
        return network.eval()

    def outline(self, **keywords: Any) -> nn.Module:
        """The network without memory for weights, or with it where the factory cannot do without."""
        try:
            return self.build(outline=True, **keywords)
        except CheckFailed:
            return self.build(**keywords)

    def inputs(self, batch: int, *, channels: int | None = None, size: int | None = None) -> tuple[Tensor, ...]:
        """Random images, the same ones every time: one tensor [B, C, H, W], or two for a difference model."""
        import torch

        shape = (batch, channels or self.channels, size or self.small_size, size or self.small_size)
        count = 2 if self.is_difference else 1
        generator = torch.Generator().manual_seed(7)
        return tuple(torch.randn(shape, generator=generator) for _ in range(count))

    def release(self) -> None:
        """Forget the shared network."""
        self._bench.clear()


def same(first: Tensor, second: Tensor, tolerance: float = 1e-4) -> bool:
    """Whether two outputs agree to `tolerance` of the larger one's greatest magnitude."""
    if first.shape != second.shape:
        return False
    scale = max(float(first.abs().max()), float(second.abs().max()), 1e-6) if first.numel() else 1.0
    return bool((first - second).abs().max() <= tolerance * scale) if first.numel() else True


def subjects_of(target: str, registry: Registry) -> Package:
    """What a name means: all entries of the distribution of that name, or one architecture or difference model."""
    wanted = target.lower().replace("_", "-").replace(".", "-")
    own = tuple(entry for entry in registry.entries if entry.distribution == wanted)
    if own:
        return Package(target, registry, own)
    reasons = [
        f"{problem.entry or 'the distribution'}: {problem.cause}"
        for problem in registry.problems
        if problem.distribution == wanted
    ]
    if reasons:
        return Package(target, registry, (), f"`{target}` offers nothing that medcli can use: {'; '.join(reasons)}")
    refusals: list[UsageProblem] = []
    for group in (ARCHITECTURES, DIFFERENCE_MODELS):
        try:
            return Package(target, registry, (find(registry, target, group),))
        except UsageProblem as error:
            refusals.append(error)
    known = next((error for error in refusals if error.code != "unknown-architecture"), None)
    return Package(target, registry, (), str(known) if known else _UNKNOWN.format(target=target), unknown=True)
