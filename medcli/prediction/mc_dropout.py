"""Monte-Carlo dropout (Gal and Ghahramani, ICML 2016): one network asked T times, each time with other units dropped.

A pass is one thinned network, the same for every picture: its masks follow from seed, pass and layer alone. So the
answer for a picture depends neither on the batch it came in nor on the pictures beside it, and on any device the same
units are dropped. Masks are put on by hooks while the network stays in evaluation mode, because switching modules to
training mode would also move the statistics of batch normalisation.

What is sampled: the head's dropout, and every dropout layer with p > 0 within the backbone, those of adapters included.
What is not: stochastic depth (`drop_path`), which drops whole blocks, a regulariser that networks are not meant to be
read with, and would cost a pass of the backbone for every sample; and dropout that a network calls as a function, of
which attention's fused form is the usual case.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from medcli.errors import UsageProblem
from medcli.models.build import LoadedModel
from medcli.models.classifier import Classifier

__all__ = ["DropoutLayers", "McDropout", "dropout_layers", "with_mc_dropout"]

HEAD = "medcli_head.dropout"
KEPT = 65_536
"""Masks up to this many numbers are kept between batches; larger ones are drawn again."""

_BY_CHANNEL = (nn.Dropout1d, nn.Dropout2d, nn.Dropout3d)


@dataclass(frozen=True)
class DropoutLayers:
    """The dropout of a classifier that can be sampled.

    Args:
        head: probability in the head; 0 for none.
        inner: names of the layers within the backbone that have some.
    """

    head: float
    inner: tuple[str, ...]

    def sentence(self, passes: int) -> str:
        """For the user, what is dropped and what it costs."""
        if not self.inner:
            return f"MC dropout: {passes} passes through the head (p {self.head:g}), one through the backbone"
        head = f"the head's (p {self.head:g}) and " if self.head else ""
        layers = f"{len(self.inner)} dropout layer{'s' if len(self.inner) > 1 else ''} of the backbone"
        return f"MC dropout: {passes} passes through the whole network, for {head}{layers}"


def dropout_layers(classifier: Classifier) -> DropoutLayers:
    """Which dropout a classifier has."""
    layers = {
        name: float(module.p)
        for name, module in classifier.named_modules()
        if isinstance(module, nn.Dropout | nn.Dropout1d | nn.Dropout2d | nn.Dropout3d) and module.p > 0
    }
    head = layers.pop(HEAD, 0.0)
    return DropoutLayers(head, tuple(layers))


def with_mc_dropout(loaded: LoadedModel, passes: int, seed: int = 0) -> LoadedModel:
    """The same model, asked `passes` times; its predictor gives logits [B, passes, ...].

    Raises:
        UsageProblem: there is no dropout to sample (code `no-dropout`).
    """
    if loaded.views is not None:
        raise UsageProblem(
            "a model is asked in one way at a time: by dropout, by views or by crops",
            where="--mc-dropout",
            code="one-way-of-asking",
        )
    layers = dropout_layers(loaded.classifier)
    if not (layers.head or layers.inner):
        knn = loaded.spec.head_kind == "knn"
        raise UsageProblem(
            "neighbours vote without dropout, so that every pass would give the same answer"
            if knn
            else f"this `{loaded.spec.architecture}` has no dropout, so that every pass would give the same answer",
            where="--mc-dropout",
            hint="`--dropout 0.2` while training gives the head some; an ensemble needs none: `medcli ensemble`",
            code="no-dropout",
        )
    asked = McDropout(loaded.classifier, passes, seed)
    return replace(loaded, views=asked.eval(), spec=replace(loaded.spec, head_kind="linear"))


class McDropout(nn.Module):
    """T thinned networks as one: images [B, C, S, S] -> logits [B, T, ...].

    Where dropout sits in the head alone, the backbone runs once for all of them.

    Args:
        classifier: in evaluation mode.
        passes: T.
        seed: decides which units are dropped.
    """

    def __init__(self, classifier: Classifier, passes: int, seed: int = 0) -> None:
        super().__init__()
        self.network = classifier
        self.passes = passes
        self.seed = seed
        self.layers = dropout_layers(classifier)
        self._masks: dict[tuple[Any, ...], Tensor] = {}
        self._calls: dict[str, int] = {}
        self._proven = False

    @property
    def shares_features(self) -> bool:
        """Whether all passes start from the same features."""
        return not self.layers.inner

    def forward(self, images: Tensor) -> Tensor:
        """All passes.

        Raises:
            UsageProblem: on the first batch, when all of them agree exactly (code `no-dropout`).
        """
        if self.shares_features:
            return self.from_features(self.network.backbone(images))
        return self._sampled(lambda: self.network(images))

    def from_features(self, features: Tensor) -> Tensor:
        """Features [B, D] -> logits [B, T, ...]; for `shares_features` alone."""
        return self._sampled(lambda: self.network.medcli_head(features))

    def _sampled(self, ask: Callable[[], Tensor]) -> Tensor:
        answers = []
        for number in range(self.passes):
            with self._dropping(number):
                answers.append(self.network.decode(ask()))
        if not self._proven:
            self._prove(answers)
        return torch.stack(answers, dim=1)

    def _prove(self, answers: list[Tensor]) -> None:
        if all(torch.equal(answers[0], other) for other in answers[1:]):
            raise UsageProblem(
                f"{self.passes} passes with dropout agree exactly: it does not reach the answer",
                where="--mc-dropout",
                hint="train with more of it (`--dropout 0.2`), or make an ensemble: `medcli ensemble`",
                code="no-dropout",
            )
        self._proven = True

    @contextmanager
    def _dropping(self, number: int) -> Iterator[None]:
        """Let every sampled layer drop the units of one pass."""
        self._calls.clear()
        modules = dict(self.network.named_modules())
        hooks = []
        for name in ((HEAD,) if self.layers.head else ()) + self.layers.inner:
            hooks.append(modules[name].register_forward_hook(self._hook(name, number)))
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, name: str, number: int) -> Callable[[nn.Module, Any, Tensor], Tensor]:
        def drop(module: nn.Module, _: Any, output: Tensor) -> Tensor:
            call = self._calls.get(name, 0)
            self._calls[name] = call + 1
            shape = tuple(output.shape[1:])
            if isinstance(module, _BY_CHANNEL):
                shape = (shape[0], *(1 for _ in shape[1:]))
            return output * self._mask(name, call, number, shape, float(module.p), output)  # type: ignore[arg-type]

        return drop

    def _mask(self, name: str, call: int, number: int, shape: tuple[int, ...], p: float, like: Tensor) -> Tensor:
        """0 with probability p, else 1 / (1 - p), of the shape of one picture's values."""
        key = (name, call, number, shape, like.dtype, like.device)
        if key in self._masks:
            return self._masks[key]
        digest = hashlib.sha256(f"{self.seed} {number} {call} {name}".encode()).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
        kept = torch.rand(shape, generator=generator) >= p
        mask = (kept / (1 - p)).to(like.device, like.dtype)
        if mask.numel() <= KEPT:
            self._masks[key] = mask
        return mask
