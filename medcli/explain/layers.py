"""Where in a network the picture is still a map: found by looking at what its modules give out, not by their names."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from medcli.errors import UsageProblem, nearest
from medcli.explain.questions import Question
from medcli.models.classifier import Classifier

__all__ = [
    "MapLayer",
    "activation_and_gradient",
    "default_layer",
    "feature_grid",
    "last_layer",
    "named_layer",
    "reads_patches",
]

SMALLEST_GRID = 4
"""A map of fewer cells a side says nothing about places."""


@dataclass(frozen=True)
class MapLayer:
    """A module whose output is a map of the picture.

    Args:
        name: within the backbone.
        grid: rows and columns.
        layout: `channels-first` [B, D, h, w], `channels-last` [B, h, w, D], or `tokens` [B, prefix + h w, D].
        prefix: tokens before the patches.
        width: D.
    """

    name: str
    grid: tuple[int, int]
    layout: str = "channels-first"
    prefix: int = 0
    width: int = 0

    @property
    def shown(self) -> str:
        """Its name as people call it."""
        return self.name.removeprefix("net.")

    def as_map(self, output: Tensor) -> Tensor:
        """The module's output as [B, D, h, w]."""
        if self.layout == "channels-first":
            return output
        if self.layout == "channels-last":
            return output.permute(0, 3, 1, 2)
        rows, columns = self.grid
        return output[:, self.prefix :].transpose(1, 2).reshape(len(output), -1, rows, columns)


def activation_and_gradient(
    classifier: Classifier, images: Tensor, question: Question, layer: MapLayer
) -> tuple[Tensor, Tensor]:
    """A layer's map and the gradient of the question's score by it, both [B, D, h, w].

    Nothing below the layer is differentiated, so that it costs a forward pass and the backward pass of what lies above.

    Raises:
        UsageProblem: no gradient leads from the score to the layer.
    """
    module = classifier.backbone.get_submodule(layer.name)
    kept: list[Tensor] = []

    def cut(_: nn.Module, __: Any, output: Any) -> Any:
        leaf = _tensor_of(output).detach().requires_grad_()
        kept.append(leaf)
        # Later modules may write into what they are given; the leaf stays as it was.
        return _with_tensor(output, leaf.clone())

    hook = module.register_forward_hook(cut)
    try:
        with torch.enable_grad():
            score = question.score(classifier.decode(classifier(images))).sum()
            (gradient,) = torch.autograd.grad(score, kept[-1:], allow_unused=True) if score.requires_grad else (None,)
    finally:
        hook.remove()
    if gradient is None:
        raise UsageProblem(
            f"no gradient leads from the answer back to `{layer.shown}`",
            where="--layer",
            hint="name a layer that the answer depends on, or `--method occlusion`",
            code="no-gradient",
        )
    return layer.as_map(kept[-1].detach()), layer.as_map(gradient)


def feature_grid(classifier: Classifier, images: Tensor) -> tuple[int, int] | None:
    """Rows and columns of the last map before pooling; None where the backbone offers none."""
    final = _final_map(classifier, images)
    return None if final is None else (int(final.shape[2]), int(final.shape[3]))


def default_layer(classifier: Classifier, images: Tensor, question: Question) -> MapLayer | None:
    """The deepest module whose output is a map that the answer is read from, with cells enough to tell places apart.

    That is the last map before pooling. Where it has fewer than 4 cells a side, as small pictures have it, or where the
    answer is read from a class token beside it, the deepest earlier map with a gradient is taken.

    Args:
        images: one picture [1, C, S, S] to look with.

    Returns:
        the layer, or None where the backbone offers no feature map or none of its modules gives it out.
    """
    end = last_layer(classifier, images)
    if end is None:
        return None
    if min(end.grid) >= SMALLEST_GRID and _differs(classifier, images, question, end):
        return end
    candidates = [layer for layer in _maps(classifier, images, end, question) if _alike(layer, end)]
    large = [layer for layer in candidates if min(layer.grid) >= SMALLEST_GRID]
    found = large or candidates
    return found[-1] if found else None


def _alike(layer: MapLayer, end: MapLayer) -> bool:
    """Whether a layer is laid out as the last map is; tokens of another width are parts of a block's inside."""
    return layer.layout == end.layout and (end.layout != "tokens" or layer.width == end.width)


def last_layer(classifier: Classifier, images: Tensor) -> MapLayer | None:
    """The module that gives out the last map before pooling, or None where there is none."""
    final = _final_map(classifier, images)
    if final is None:
        return None
    ends: list[MapLayer] = []
    _watch(classifier, images, lambda name, output: ends.extend(_same(name, output, final)))
    # The outermost of those that give the map out is the last to finish.
    return ends[-1] if ends else None


def reads_patches(classifier: Classifier, images: Tensor, question: Question) -> bool:
    """Whether the answer is read from the patches of the last map, not from a token beside them."""
    end = last_layer(classifier, images)
    return end is None or _differs(classifier, images, question, end)


def named_layer(classifier: Classifier, images: Tensor, name: str) -> MapLayer:
    """The layer that `--layer` names.

    Raises:
        UsageProblem: no such module, or its output is no map.
    """
    modules = {key: part for key, part in classifier.backbone.named_modules() if key}
    plain = name.removeprefix("backbone.")
    found = next((key for key in (plain, f"net.{plain}") if key in modules), None)
    if found is None:
        maps = _maps(classifier, images, last_layer(classifier, images))
        stages = list(dict.fromkeys(layer.shown for layer in maps if layer.name.count(".") < 3))
        close = nearest(plain.removeprefix("net."), stages) or tuple(stages[-6:])
        raise UsageProblem(
            f"the network has no layer `{name}`",
            where="--layer",
            hint="layers with a map: " + ", ".join(f"`{one}`" for one in close),
            code="unknown-layer",
        )
    layers = [layer for layer in _maps(classifier, images, last_layer(classifier, images)) if layer.name == found]
    if not layers:
        raise UsageProblem(
            f"what `{name}` gives out is no map of the picture",
            where="--layer",
            hint="name a stage or a block, as `medcli models show ARCH --layers` lists them",
            code="no-feature-map",
        )
    return layers[-1]


def _final_map(classifier: Classifier, images: Tensor) -> Tensor | None:
    if not hasattr(classifier.backbone, "feature_map"):
        return None
    with torch.no_grad():
        try:
            return classifier.feature_map(images).detach()
        except UsageProblem as problem:
            if problem.code == "no-feature-map":
                return None
            raise


def _watch(
    classifier: Classifier, images: Tensor, look: Callable[[str, Tensor], None], *, gradients: bool = False
) -> Tensor:
    """Show every module's output, in the order in which they finish, to `look`; returns the classifier's."""
    hooks = []
    for name, module in classifier.backbone.named_modules():
        if name:
            hooks.append(module.register_forward_hook(lambda _, __, output, name=name: _show(look, name, output)))
    try:
        with torch.set_grad_enabled(gradients):
            raw: Tensor = classifier(images)
            return raw
    finally:
        for hook in hooks:
            hook.remove()


def _show(look: Callable[[str, Tensor], None], name: str, output: Any) -> None:
    try:
        tensor = _tensor_of(output)
    except TypeError:
        return
    look(name, tensor)


def _same(name: str, output: Tensor, final: Tensor) -> list[MapLayer]:
    """The layouts in which an output is the final map."""
    batch, width, rows, columns = final.shape
    candidates = []
    if output.ndim == 4:
        candidates = [MapLayer(name, (rows, columns), kind, 0, width) for kind in ("channels-first", "channels-last")]
    elif output.ndim == 3 and output.shape[1] >= rows * columns:
        candidates = [MapLayer(name, (rows, columns), "tokens", output.shape[1] - rows * columns, width)]
    found = []
    for layer in candidates:
        if output.numel() < batch * width * rows * columns:
            continue
        seen = layer.as_map(output) if output.ndim == 4 or output.shape[2] == width else output
        if seen.shape == final.shape and torch.allclose(seen.float(), final.float(), rtol=1e-4, atol=1e-5):
            found.append(layer)
    return found[:1]


def _maps(
    classifier: Classifier, images: Tensor, end: MapLayer | None, question: Question | None = None
) -> list[MapLayer]:
    """Modules whose output has the shape of a map, in the order in which they finish.

    Args:
        end: the last map, which tells the layout of the others.
        question: leave out maps that its score does not depend on; all of them are differentiated in one pass.
    """
    found: list[tuple[MapLayer, Tensor]] = []
    kind = end.layout if end is not None else ""
    height, width = images.shape[-2:]

    def look(name: str, output: Tensor) -> None:
        if len(output) != len(images) or not output.is_floating_point():
            return
        if output.ndim == 4 and kind != "tokens":
            last = kind == "channels-last"
            rows, columns = (int(side) for side in (output.shape[1:3] if last else output.shape[2:]))
            # Channels that lie last are no columns: a map has the proportions of the picture.
            if min(rows, columns) > 1 and abs(rows * width - columns * height) < max(height, width):
                layout = "channels-last" if last else "channels-first"
                found.append((MapLayer(name, (rows, columns), layout, 0, int(output.shape[3 if last else 1])), output))
        elif output.ndim == 3 and kind in {"", "tokens"}:
            prefix, grid = _token_grid(output.shape[1], images, end)
            if grid is not None:
                found.append((MapLayer(name, grid, "tokens", prefix, int(output.shape[2])), output))

    if question is None:
        _watch(classifier, images, look)
        return [layer for layer, _ in found]
    with torch.enable_grad():
        logits = _watch(classifier, images.detach().clone().requires_grad_(), look, gradients=True)
        score = question.score(classifier.decode(logits)).sum()
        if not score.requires_grad or not found:
            return []
        gradients = torch.autograd.grad(score, [output for _, output in found], allow_unused=True)
    return [
        layer
        for (layer, _), gradient in zip(found, gradients, strict=True)
        if gradient is not None and bool(layer.as_map(gradient).abs().max() > 0)
    ]


def _token_grid(count: int, images: Tensor, end: MapLayer | None) -> tuple[int, tuple[int, int] | None]:
    if end is not None and end.layout == "tokens" and count == end.prefix + end.grid[0] * end.grid[1]:
        return end.prefix, end.grid
    height, width = images.shape[-2:]
    rows = round((count * height / width) ** 0.5)
    return 0, (rows, count // rows) if rows > 1 and count % rows == 0 and count // rows > 1 else None


def _differs(classifier: Classifier, images: Tensor, question: Question, layer: MapLayer) -> bool:
    """Whether the score depends on the map in this layer, by its gradient."""
    try:
        _, gradient = activation_and_gradient(classifier, images, question, layer)
    except (UsageProblem, RuntimeError, IndexError):
        # A module inside a block may give out what nothing reads, or may not be asked at all.
        return False
    return bool(gradient.abs().max() > 0)


def _tensor_of(output: Any) -> Tensor:
    if isinstance(output, Tensor):
        return output
    if isinstance(output, tuple) and output and isinstance(output[0], Tensor):
        return output[0]
    raise TypeError(type(output).__name__)


def _with_tensor(output: Any, tensor: Tensor) -> Any:
    return tensor if isinstance(output, Tensor) else (tensor, *output[1:])
