"""The difference model for real work on one machine: one encoder of timm's for both images, compared at every scale."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medcli.errors import UsageProblem, nearest
from medcli.plugin import LayerGroup, LoadReport, TimmBackbone, group_layers, load_weights

__all__ = ["Reconstruction", "SiameseUnet", "siamese_unet"]

_GROUPS = 8
_UNCHANGED = -4.0  # before the sigmoid: nearly all of a picture has not changed, so a magnitude starts near 0
_CODE = "no-difference-encoder"


class Step(nn.Module):
    """One step of the decoder: to the size of the finer map, beside it, through two convolutions.

    Args:
        inputs: channels of the coarser map.
        skip: channels of the finer map.
        outputs: channels of the result.
    """

    def __init__(self, inputs: int, skip: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs + skip, outputs, 3, padding=1, bias=False)
        self.first_norm = nn.GroupNorm(_groups(outputs), outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.second_norm = nn.GroupNorm(_groups(outputs), outputs)

    def forward(self, coarse: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        """[B, inputs, h, w] and [B, skip, H, W] -> [B, outputs, H, W]."""
        if coarse.shape[-2:] != fine.shape[-2:]:
            coarse = functional.interpolate(coarse, size=fine.shape[-2:], mode="bilinear", align_corners=False)
        merged = torch.cat([coarse, fine], 1)
        merged = functional.relu(self.first_norm(self.first(merged)))
        return functional.relu(self.second_norm(self.second(merged)))


class Decoder(nn.Module):
    """Maps of an encoder, finest first, and a picture -> one channel of the picture's size, before any activation.

    Args:
        channels: of the maps, finest first.
        picture: channels of the picture.
        width: channels at the picture's own size, doubled with each step down, to eightfold at most.
    """

    def __init__(self, channels: list[int], picture: int, width: int) -> None:
        super().__init__()
        self.checkpointed = False
        skips = [picture, *channels[:-1]]
        widths = [min(width * 2**level, width * 8) for level in range(len(skips))]
        deeper = [*widths[1:], channels[-1]]
        self.steps = nn.ModuleList(
            Step(before, skip, after) for before, skip, after in reversed(list(zip(deeper, skips, widths, strict=True)))
        )
        self.out = nn.Conv2d(width, 1, 3, padding=1)

    def forward(self, maps: list[torch.Tensor], picture: torch.Tensor) -> torch.Tensor:
        """-> [B, 1, H, W]."""
        current = maps[-1]
        for step, fine in zip(self.steps, [*reversed(maps[:-1]), picture], strict=True):
            if self.checkpointed and self.training:
                current = checkpoint(step, current, fine, use_reentrant=False)
            else:
                current = step(current, fine)
        change: torch.Tensor = self.out(current)
        return change


class SiameseUnet(nn.Module):
    """Two images [B, C, H, W] of one patient -> a map of what changed, [B, 1, H, W].

    Both go through one encoder; at every scale, that of the pictures included, the baseline's map is subtracted from
    the follow-up's, and a light U-Net turns the differences into the map.

    Args:
        encoder: a timm network with intermediate maps.
        in_channels: channels of the images.
        image_size: side in pixels.
        width: channels of the decoder at full size.
        signed: tanh, values in [-1, 1]; otherwise sigmoid, values in [0, 1].

    Raises:
        UsageProblem: timm has no such network, or it gives no intermediate maps.
    """

    def __init__(
        self, encoder: str, in_channels: int, image_size: int, width: int = 16, *, signed: bool = True
    ) -> None:
        super().__init__()
        self.encoder_name = encoder.removeprefix("timm/").partition(".")[0]
        self.in_channels = in_channels
        self.image_size = image_size
        self.width = width
        self.signed = signed
        self.load_report: LoadReport | None = None
        self.encoder = _encoder(self.encoder_name, in_channels, image_size)
        self.channels: list[int] = self.encoder.feature_info.channels()  # type: ignore[operator, union-attr]
        self.decoder = Decoder(self.channels, in_channels, width)
        if not signed and self.decoder.out.bias is not None:
            nn.init.constant_(self.decoder.out.bias, _UNCHANGED)

    def forward(self, baseline: torch.Tensor, followup: torch.Tensor) -> torch.Tensor:
        """Two times [B, C, H, W] -> [B, 1, H, W]."""
        # One pass for both, so that batch norm sees both alike. Counted, not halved: `chunk` and `len` would fix the
        # number of pairs in an exported graph.
        pairs, differences = baseline.shape[0], []
        for maps in _maps(self.encoder, torch.cat([baseline, followup]), self.channels):
            before, after = maps[:pairs], maps[pairs:]
            differences.append(after - before)
        change = self.decoder(differences, followup - baseline)
        return torch.tanh(change) if self.signed else torch.sigmoid(change)

    def layer_groups(self) -> tuple[LayerGroup, ...]:
        """The encoder's blocks, then the decoder's steps; the encoder's own stages, then one for each step."""
        encoder = group_layers(self.encoder, prefix="encoder.")
        after = encoder[-1].stage + 1
        decoder = group_layers(self.decoder, prefix="decoder.")
        return (
            *encoder,
            *(LayerGroup(one.name, after + one.stage, one.parameters, one.modules) for one in _labelled(decoder)),
        )

    def set_grad_checkpointing(self, enabled: bool = True) -> None:
        """Recompute the decoder's activations, and the encoder's where timm offers it, in the backward pass."""
        self.decoder.checkpointed = enabled
        inner = getattr(self.encoder, "set_grad_checkpointing", None)
        if inner is not None:
            inner(enabled)

    def encoder_tensors(self, state: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], tuple[str, ...]]:
        """The tensors of a classifier of the same timm network, under the names of `encoder`.

        timm renames modules (`stages.0` becomes `stages_0`) and drops what comes after the last map.

        Args:
            state: tensors under timm's own names.

        Returns:
            The tensors under the encoder's names as far as they are known, and the names of those that the same network
            has as a classifier and does not need for maps.
        """
        names = {_plain(name): name for name in self.encoder.state_dict()}
        with torch.device("meta"):
            whole = {_plain(name) for name in _whole(self.encoder_name, self.in_channels, self.image_size).state_dict()}
        renamed, spare = {}, []
        for name, tensor in state.items():
            plain = _plain(name)
            if plain not in names and plain in whole:
                spare.append(name)
            else:
                renamed[names.get(plain, name)] = tensor
        return renamed, tuple(spare)

    def reconstruction(self) -> Reconstruction:
        """A network around this one's own encoder that fills in what is masked, for `medcli diffmap pretrain`."""
        return Reconstruction(self.encoder, self.channels, self.in_channels, self.width)


class Reconstruction(nn.Module):
    """A picture with holes [B, C, H, W] -> the picture [B, 1, H, W] in [0, 1].

    Args:
        encoder: of a `SiameseUnet`, shared with it.
        channels: of its maps.
        in_channels: channels of the picture.
        width: channels of the decoder at full size.
    """

    def __init__(self, encoder: nn.Module, channels: list[int], in_channels: int, width: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.channels = channels
        self.decoder = Decoder(channels, in_channels, width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """[B, C, H, W] -> [B, 1, H, W]."""
        return torch.sigmoid(self.decoder(_maps(self.encoder, images, self.channels), images))


def siamese_unet(
    *,
    in_channels: int,
    image_size: int,
    map: Literal["signed", "magnitude"] = "signed",  # noqa: A002 (the keyword's own name)
    weights: str | None = None,
    encoder: str = "resnet18",
    encoder_weights: str = "",
    width: int = 16,
    grad_checkpointing: bool = False,
) -> SiameseUnet:
    """See `medcli models show siamese-unet`.

    Raises:
        UsageProblem: an encoder that timm does not have or that gives no maps, or weights that do not fit.
    """
    network = SiameseUnet(encoder, in_channels, image_size, width, signed=map == "signed")
    if encoder_weights:
        default = encoder_weights == "default"
        given = TimmBackbone(
            network.encoder_name,
            in_channels=in_channels,
            image_size=image_size,
            pretrained=default,
            weights=None if default else encoder_weights,
        )
        tensors, _ = network.encoder_tensors(given.net.state_dict())
        network.encoder.load_state_dict(tensors)
        network.load_report = given.load_report
    if weights is not None:
        network.load_report, _ = load_weights(network, weights, name="siamese-unet")
    network.set_grad_checkpointing(grad_checkpointing)
    return network


def _encoder(name: str, in_channels: int, image_size: int) -> nn.Module:
    import timm

    if not timm.is_model(name):
        close = nearest(name, timm.list_models())
        raise UsageProblem(
            f"timm has no network `{name}`",
            where="--arch-opt encoder",
            hint=f"did you mean {', '.join(f'`{one}`' for one in close)}?" if close else "press TAB after `timm/`",
            code=_CODE,
        )
    try:
        network: nn.Module = timm.create_model(
            name, features_only=True, in_chans=in_channels, **_sized(name, image_size)
        )
    except (AttributeError, AssertionError, RuntimeError, TypeError, ValueError) as error:
        raise UsageProblem(
            f"timm's `{name}` cannot give intermediate maps of {image_size} × {image_size} pixels: {error}",
            where="--arch-opt encoder",
            hint="--arch-opt encoder=resnet18",
            code=_CODE,
        ) from error
    return network


def _whole(name: str, in_channels: int, image_size: int) -> nn.Module:
    """The same network with everything timm drops for intermediate maps."""
    import timm

    whole: nn.Module = timm.create_model(name, in_chans=in_channels, **_sized(name, image_size))
    return whole


def _sized(name: str, image_size: int) -> dict[str, Any]:
    """The keyword that tells a network of fixed size its size."""
    import timm

    known = timm.get_pretrained_cfg(name)
    return {"img_size": image_size} if known is not None and known.fixed_input_size else {}


def _maps(encoder: nn.Module, images: torch.Tensor, channels: list[int]) -> list[torch.Tensor]:
    """The encoder's maps [B, D, h, w], finest first; timm's windowed transformers give [B, h, w, D]."""
    return [
        one if one.shape[1] == width else one.permute(0, 3, 1, 2)
        for one, width in zip(encoder(images), channels, strict=True)
    ]


def _plain(name: str) -> str:
    """What timm's names of one tensor have in common, whichever way its maps are taken."""
    return name.removeprefix("model.").replace(".", "_")


def _groups(channels: int) -> int:
    return next(count for count in range(min(_GROUPS, channels), 0, -1) if channels % count == 0)


def _labelled(groups: tuple[LayerGroup, ...]) -> tuple[LayerGroup, ...]:
    """Names of their own for groups cut within the decoder."""
    return tuple(
        LayerGroup(one.parameters[0].rpartition(".")[0].rpartition(".")[0] or one.name, *_rest(one)) for one in groups
    )


def _rest(group: LayerGroup) -> tuple[int, tuple[str, ...], tuple[str, ...]]:
    return group.stage, group.parameters, group.modules
