"""What the factory promises: what it takes, and that the card tells the truth about what it gives.

Nothing is computed here: shapes come from the meta device, so that the largest network costs what the smallest does.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

from medcli.errors import UsageProblem, listed
from medcli.plugin import ArchitectureCard, OptionCard
from medcli.registry.discovery import load_factory
from medcli.testing.checks.subject import Subject
from medcli.testing.checks.verdict import CheckFailed, fail, skip

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = ["channels", "drop_path", "facts", "options", "outline", "output_shape", "sizes"]

_CHANNELS = (1, 3, 4)


def outline(subject: Subject) -> None:
    """No memory for weights."""
    network = subject.build(outline=True)
    real = [name for name, parameter in network.named_parameters() if parameter.device.type != "meta"]
    if real:
        fail(f"built on the meta device, these parameters still take memory: {listed(real, 5)}")


def facts(subject: Subject) -> str:
    """Parameters, width, stages, blocks."""
    card = _card(subject)
    network = subject.outline()
    groups = list(network.layer_groups()) if hasattr(network, "layer_groups") else None  # type: ignore[operator]
    counted = {
        "params": (card.params, sum(parameter.numel() for parameter in network.parameters())),
        "feature_dim": (card.feature_dim, getattr(network, "feature_dim", None)),
        "blocks": (card.blocks, None if groups is None else len(groups)),
        "stages": (card.stages, None if groups is None else len({group.stage for group in groups})),
    }
    wrong = [
        f"`{name}` is {stated} in the card and {found} in the network"
        for name, (stated, found) in counted.items()
        if stated is not None and found is not None and stated != found
    ]
    if card.params_total is not None and card.params is not None and card.params_total < card.params:
        wrong.append(f"`params_total` ({card.params_total}) is less than `params` ({card.params})")
    if card.default_weights and card.weight(card.default_weights) is None:
        wrong.append(f"`default_weights` is `{card.default_weights}`, which is no tag of `weights`")
    if wrong:
        fail(f"{'; '.join(wrong)} ({card.place})" if card.place else "; ".join(wrong))
    stated = [name for name, (value, _) in counted.items() if value is not None]
    return f"checked {', '.join(stated)}" if stated else "the card states no number"


def channels(subject: Subject) -> None:
    """One for X-rays, three for photographs, four for whatever comes."""
    for count in _CHANNELS:
        network = subject.outline(channels=count)
        _expect_shape(subject, network, count, subject.native_size, f"with {count} channels")


def sizes(subject: Subject) -> str:
    """The card's own size, another that its rule allows, and the smallest it declares."""
    rule, native = subject.rule, subject.native_size
    wanted = [native, subject.small_size]
    wanted += [rule.nearest(side) for side in (native // 2, native * 2, native + max(rule.multiple, 2))]
    if rule.minimum > 1:
        wanted.append(rule.nearest(1))
    if rule.nearest(native) != native:
        fail(f"`input_size` is {native}, which the card's `size` does not allow; the nearest is {rule.nearest(native)}")
    # Its own size, the smallest, and one more; each further one would say the same again.
    chosen = sorted({native, min(wanted), next((side for side in wanted[1:] if side != native), native)})
    for side in chosen:
        try:
            network = subject.outline(size=side)
        except UsageProblem as error:
            fail(f"{side} × {side} pixels are refused although the card's `size` allows them: {error.message}")
        _expect_shape(subject, network, subject.channels, side, f"with {side} × {side} pixels")
    return f"{', '.join(map(str, chosen))} pixels"


def options(subject: Subject) -> str:
    """Every option of the card: its default is the factory's, each choice builds."""
    card = _card(subject)
    if not card.options:
        skip("the card lists no option")
    plain = _shapes(subject.outline())
    defaults = _signature_defaults(subject)
    tried = 0
    for name, option in card.options.items():
        if defaults is not None and name in defaults and defaults[name] not in (inspect.Parameter.empty, None):
            stated, own = option.default, defaults[name]
            if stated != own:
                fail(f"option `{name}`: the default is {stated!r} in the card and {own!r} in the factory")
        for value in _values(option):
            said = f"with `{name}={value}`"
            size = subject.rule.nearest(subject.native_size, {name: value})
            try:
                network = subject.outline(size=size, **{name: value})
            except UsageProblem as error:
                fail(f"{said}, which the card allows: {error.message}")
            _expect_shape(subject, network, subject.channels, size, said)
            if value == option.default and size == subject.native_size and _shapes(network) != plain:
                fail(f"{said}, its default, the network is another than without the option")
            tried += 1
    return f"{tried} values of {len(card.options)} options"


def drop_path(subject: Subject) -> str | None:
    """Accepted and acting, or refused: never silently ignored."""
    import torch

    card = _card(subject)
    if card.drop_path is None:
        skip("the card does not say whether it has stochastic depth")
    if not card.drop_path:
        try:
            subject.outline(drop_path=0.1)
        except UsageProblem:
            return "refused, as the card says"
        fail("`drop_path = false` in the card, but the factory takes a drop path of 0.1 without a word")
    try:
        subject.outline(drop_path=0.1)
        network = subject.build(size=subject.small_size, drop_path=0.9, **subject.plan.options).train()
    except UsageProblem as error:
        fail(f"`drop_path = true` in the card, but a drop path is refused: {error.message}")
    for module in network.modules():  # other sources of chance must not be mistaken for it
        if isinstance(module, torch.nn.Dropout | torch.nn.modules.batchnorm._BatchNorm):
            module.eval()
    inputs = subject.inputs(4)
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(0)
        _make_visible(network)
        outputs = [network(*inputs) for _ in range(6)]
    if all(torch.equal(outputs[0], other) for other in outputs[1:]):
        fail("`drop_path = true` in the card, but with a drop path of 0.9 six passes in training mode are all equal")
    return None


def output_shape(subject: Subject, network: nn.Module, inputs: tuple[torch.Tensor, ...]) -> tuple[int, ...]:
    """The promised shape for these inputs."""
    if subject.is_difference:
        batch, _, height, width = inputs[0].shape
        return (batch, 1, height, width)
    features: object = getattr(network, "feature_dim", None)
    if not isinstance(features, int):
        fail(f"`feature_dim` must be a whole number, not {features!r}")
    return (len(inputs[0]), features)


def _expect_shape(subject: Subject, network: nn.Module, count: int, size: int, said: str) -> None:
    import torch

    device = next((parameter.device for parameter in network.parameters()), torch.device("cpu"))
    shape = (2, count, size, size)
    inputs = tuple(torch.zeros(shape, device=device) for _ in range(2 if subject.is_difference else 1))
    promised = output_shape(subject, network, inputs)
    with torch.no_grad():
        try:
            with torch.device(device):
                found = network(*inputs)
        except Exception as error:
            raise CheckFailed(f"{said} the forward pass raised {type(error).__name__}: {error}") from error
    if not isinstance(found, torch.Tensor) or tuple(found.shape) != promised:
        shown = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        fail(f"{said} the output is {shown}, not {list(promised)}")


def _make_visible(network: nn.Module) -> None:
    """Undo initial values (zeros, layer scales of 1e-6) that hide what a residual branch does."""
    import torch

    for parameter in network.parameters():
        if parameter.numel() and float(parameter.abs().max()) < 1e-2:
            parameter.copy_(torch.full_like(parameter, 0.5))


def _values(option: OptionCard) -> list[Any]:
    values: list[Any] = [option.default, *option.choices]
    if option.type == "bool":
        values += [True, False]
    values += [
        int(bound) if option.type == "int" else bound for bound in (option.minimum, option.maximum) if bound is not None
    ]
    return [value for index, value in enumerate(values) if value not in values[:index]]


def _signature_defaults(subject: Subject) -> dict[str, Any] | None:
    try:
        parameters = inspect.signature(load_factory(subject.entry)).parameters
    except (TypeError, ValueError):
        return None
    return {name: parameter.default for name, parameter in parameters.items()}


def _shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {name: tuple(parameter.shape) for name, parameter in network.named_parameters()}


def _card(subject: Subject) -> ArchitectureCard:
    if subject.card is None:
        skip("it has no valid card")
    return subject.card
