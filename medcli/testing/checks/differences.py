"""What only a difference model promises."""

from __future__ import annotations

from medcli.errors import UsageProblem
from medcli.testing.checks.subject import Subject
from medcli.testing.checks.verdict import fail

__all__ = ["encoder", "extras", "magnitude"]


def magnitude(subject: Subject) -> None:
    """The other kind of map."""
    import torch

    try:
        network = subject.build(size=subject.small_size, map="magnitude", **subject.plan.options)
    except UsageProblem as error:
        fail(f'`map="magnitude"` is refused: {error.message}')
    inputs = subject.inputs(2)
    with torch.no_grad():
        found = network(*inputs)
    if tuple(found.shape) != (2, 1, *inputs[0].shape[2:]):
        fail(f"the map is {list(found.shape)}, not {[2, 1, *inputs[0].shape[2:]]}")
    if not bool(((found >= 0) & (found <= 1)).all()):
        fail(f"a map of magnitudes lies in [0, 1], this one in [{float(found.min()):.3g}, {float(found.max()):.3g}]")


def encoder(subject: Subject) -> None:
    """A module of the network itself, so that freezing it and giving it weights reaches the network."""
    from torch import nn

    network = subject.outline()
    part = getattr(network, "encoder", None)
    if not isinstance(part, nn.Module):
        fail(f"`.encoder` must be an `nn.Module`, not {type(part).__name__}")
    if not any(part is module for module in network.modules() if module is not network):
        fail("`.encoder` is no part of the network: its parameters are not the network's")
    trainable = subject.card is None or subject.card.trainable
    if trainable and not any(True for _ in part.parameters()):
        fail("`.encoder` has no parameters; a model that has none at all says `trainable = false` in its card")


def extras(subject: Subject) -> str:
    """What a model may offer beside the contract, and `diffmap pretrain` and `diffmap train` then use."""
    import torch

    network = subject.network()
    images = subject.inputs(2)[0]
    found = []
    if hasattr(network, "reconstruction"):
        whole = network.reconstruction()  # type: ignore[operator]
        if getattr(whole, "encoder", None) is not network.encoder:
            fail("`reconstruction()` has another encoder than the network, so that pretraining would be lost")
        with torch.no_grad():
            _expect(whole.eval()(images), (len(images), 1, *images.shape[2:]), "`reconstruction()`")
        found.append("reconstruction")
    if hasattr(network, "discriminator"):
        side = max(images.shape[-1], 64)
        with torch.no_grad():
            logits = network.discriminator(1)(torch.zeros(2, 1, side, side))  # type: ignore[operator]
        if logits.ndim != 4 or logits.shape[:2] != (2, 1):
            fail(f"`discriminator(1)` gives {list(logits.shape)} for two maps, not a logit per patch, [2, 1, h, w]")
        found.append("discriminator")
    if hasattr(network, "encoder_tensors"):
        renamed, spare = network.encoder_tensors(network.encoder.state_dict())  # type: ignore[operator, union-attr]
        if spare or set(renamed) != set(network.encoder.state_dict()):  # type: ignore[union-attr]
            fail("`encoder_tensors` changes names that are the encoder's own already")
        found.append("encoder_tensors")
    if hasattr(network, "set_grad_checkpointing"):
        _check_checkpointing(subject)
        found.append("set_grad_checkpointing")
    return ", ".join(found) or "it offers nothing beside the contract"


def _check_checkpointing(subject: Subject) -> None:
    """Same gradients, in less memory; chance is drawn alike."""
    import torch

    gradients = []
    for enabled in (False, True):
        network = subject.small().train()
        try:
            network.set_grad_checkpointing(enabled)  # type: ignore[operator]
        except UsageProblem:
            return  # an encoder that cannot says so
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(3)
            found = network(*subject.inputs(2))
            (found * torch.linspace(-1, 1, found.numel()).reshape(found.shape)).sum().backward()
        gradients.append({name: one.grad for name, one in network.named_parameters() if one.grad is not None})
    plain, again = gradients
    moved = [name for name in plain if name not in again or not torch.allclose(plain[name], again[name], atol=1e-5)]
    if moved:
        fail(f"with gradient checkpointing {len(moved)} gradients are others, the first `{moved[0]}`")


def _expect(found: object, shape: tuple[int, ...], said: str) -> None:
    import torch

    if not isinstance(found, torch.Tensor) or tuple(found.shape) != shape:
        shown = list(found.shape) if isinstance(found, torch.Tensor) else type(found).__name__
        fail(f"{said} gives {shown}, not {list(shape)}")
