"""Which way of explaining a network can give, which one is taken where none is named, and how each is run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from medcli.errors import UsageProblem
from medcli.explain.attending import Reading, attention_map, gradient_rollout, reading, rollout_map
from medcli.explain.cams import CAMS
from medcli.explain.changing import integrated_gradients, occlusion, require_captum
from medcli.explain.layers import MapLayer, activation_and_gradient, default_layer, last_layer, named_layer
from medcli.explain.questions import Question
from medcli.models.classifier import Classifier

__all__ = ["TITLES", "Explainer", "MapOf", "choose_method"]

TITLES: Mapping[str, str] = {
    "gradcam": "Grad-CAM",
    "gradcam++": "Grad-CAM++",
    "layercam": "LayerCAM",
    "hirescam": "HiResCAM",
    "attention": "attention",
    "rollout": "attention rollout",
    "gradient-rollout": "gradient rollout",
    "occlusion": "occlusion",
    "integrated-gradients": "integrated gradients",
}
"""Methods as `--method` names them, and as a picture does."""

ATTENDING = ("attention", "rollout", "gradient-rollout")
CLASSLESS = ("attention", "rollout")
CHANGING = ("occlusion", "integrated-gradients")


class MapOf(Protocol):
    """Explains one picture: classifier, images [1, C, S, S] and question to a map [h, w] >= 0 of any resolution."""

    def __call__(self, classifier: Classifier, images: Tensor, question: Question, /) -> Tensor: ...


@dataclass(frozen=True)
class Explainer:
    """A method, ready for one classifier and for others that differ from it in nothing but their weights.

    Args:
        method: as `--method` names it.
        layer: where it looks, as a person names it; empty where it looks at the input or at every block.
        why: a sentence on the choice.
        map_of: explains one picture.
    """

    method: str
    layer: str
    why: str
    map_of: MapOf

    @property
    def title(self) -> str:
        """Such as `Grad-CAM at layer4`."""
        return TITLES[self.method] + (f" at {self.layer}" if self.layer else "")

    @property
    def by_class(self) -> bool:
        """Whether another class has another map."""
        return self.method not in CLASSLESS

    def __call__(self, classifier: Classifier, images: Tensor, question: Question) -> Tensor:
        """The map of one picture, float32 [h, w] on the CPU; what is no number counts as nothing."""
        found = self.map_of(classifier, images, question)
        return found.detach().float().cpu().nan_to_num(0, 0, 0)


def choose_method(
    classifier: Classifier,
    images: Tensor,
    question: Question,
    *,
    method: str | None = None,
    layer: str | None = None,
    batch_size: int = 32,
) -> Explainer:
    """What `--method` and `--layer` mean for this network.

    Where no method is named: rollout for a transformer whose patches attend to each other, Grad-CAM for a network with
    a map of features, occlusion for any other.

    Args:
        classifier: in eval mode.
        images: one picture [1, C, S, S], normalised, to look with.
        question: any, of the classifier's own target.
        method: one of `TITLES`, or None.
        layer: a module for the CAM family, the number of a block for attention, or None.
        batch_size: changed pictures per pass, where the picture is changed.

    Raises:
        UsageProblem: a method that the network does not offer, an unknown layer, a missing package.
    """
    chosen, why = (method, "as asked for") if method else _own_method(classifier, images, layer)
    if classifier.head_kind == "knn" and chosen in {*CAMS, "gradient-rollout", "integrated-gradients"}:
        raise UsageProblem(
            f"`{chosen}` follows gradients, and votes of neighbours have none",
            where="--method",
            hint="`--method occlusion`",
            code="no-gradient",
        )
    if chosen in CAMS:
        return _cam(classifier, images, question, chosen, layer, why)
    if chosen in ATTENDING:
        return _attending(classifier, images, question, chosen, layer, why)
    if layer is not None:
        raise UsageProblem(
            f"`{chosen}` looks at the picture itself, not at a layer",
            where="--layer",
            hint="leave it out, or name a method with layers: `--method gradcam`",
            code="no-layer",
        )
    require_captum(chosen)
    if chosen == "occlusion":
        return Explainer(chosen, "", why, lambda model, x, asked: occlusion(model, x, asked, batch_size=batch_size)[0])
    return Explainer(
        chosen, "", why, lambda model, x, asked: integrated_gradients(model, x, asked, batch_size=batch_size)[0][0]
    )


def _own_method(classifier: Classifier, images: Tensor, layer: str | None) -> tuple[str, str]:
    if classifier.head_kind == "knn":
        return "occlusion", "votes of neighbours have no gradient"
    end = last_layer(classifier, images)
    if layer is not None and not layer.lstrip("-").isdigit():
        return "gradcam", "a layer was named"
    if (end is None or end.layout == "tokens") and _attends(classifier, images):
        return "rollout", "the architecture attends to patches of the whole picture"
    if end is not None:
        return "gradcam", "the architecture has a map of features"
    return "occlusion", "the architecture shows neither a map of features nor attention"


def _attends(classifier: Classifier, images: Tensor) -> bool:
    try:
        attention_map(classifier, images, -1)
    except UsageProblem as problem:
        if problem.code != "no-attention":
            raise
        return False
    return True


def _cam(
    classifier: Classifier, images: Tensor, question: Question, method: str, layer: str | None, why: str
) -> Explainer:
    place = named_layer(classifier, images, layer) if layer else default_layer(classifier, images, question)
    if place is None:
        raise UsageProblem(
            "this backbone shows no map of features that the answer depends on",
            where=f"--method {method}",
            hint="name a module with `--layer`, or take `--method occlusion`, which works for any network",
            code="no-feature-map",
        )
    if layer is None:
        why = _explain_place(classifier, images, place, why)
    cam = CAMS[method]

    def run(model: Classifier, x: Tensor, asked: Question) -> Tensor:
        return cam(*activation_and_gradient(model, x, asked, place))[0]

    return Explainer(method, place.shown, why, run)


def _explain_place(classifier: Classifier, images: Tensor, place: MapLayer, why: str) -> str:
    end = last_layer(classifier, images)
    if end is None or end.name == place.name:
        return why
    if min(end.grid) < min(place.grid):
        rows, columns = end.grid
        return f"{why}; the last map has {rows} × {columns} cells, too few to tell places apart"
    return f"{why}; the answer is not read from the last map, `{end.shown}`, but from a token beside it"


def _attending(
    classifier: Classifier, images: Tensor, question: Question, method: str, layer: str | None, why: str
) -> Explainer:
    if method != "attention" and layer is not None:
        raise UsageProblem(
            f"`{method}` follows attention through every block",
            where="--layer",
            hint="leave it out, or `--method attention --layer 0` for one block",
            code="no-layer",
        )
    block = _block(layer)
    try:
        tokens = int(attention_map(classifier, images, block).shape[-1])
    except UsageProblem as problem:
        if problem.code == "no-attention":
            named = layer is not None and _attends(classifier, images)
            problem.where = "--layer" if named else "--method"
            problem.hint = "`--layer -1` is the last" if named else "`--method gradcam`, or `--method occlusion`"
        raise
    how: Reading = reading(classifier, images, question, tokens)
    runs: Mapping[str, Callable[[Classifier, Tensor, Question], Tensor]] = {
        "attention": lambda model, x, _: attention_map(model, x, block),
        "rollout": lambda model, x, _: rollout_map(model, x),
        "gradient-rollout": gradient_rollout,
    }
    run = runs[method]
    if method == "gradient-rollout":
        run(classifier, images, question)  # says at once where a backbone does not show gradients of its attention
    shown = f"block {block}" if method == "attention" and block >= 0 else "last block" if method == "attention" else ""

    def map_of(model: Classifier, x: Tensor, asked: Question) -> Tensor:
        with torch.set_grad_enabled(method == "gradient-rollout"):
            return how.as_map(run(model, x, asked))[0]

    return Explainer(method, shown, why, map_of)


def _block(layer: str | None) -> int:
    if layer is None:
        return -1
    try:
        return int(layer)
    except ValueError:
        raise UsageProblem(
            f"`{layer}` is no number of a block",
            where="--layer",
            hint="`--layer 0` is the first block, `--layer -1` the last",
            code="unknown-layer",
        ) from None
