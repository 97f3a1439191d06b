"""Low-rank adapters in a classifier, by peft: put in, switched, merged, and never left without effect.

An adapter here is the factors in the backbone and the head that was trained with them. The classifier keeps its type,
so that prediction, export and explanation see what they always see.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from medcli.errors import RunFailure, UsageProblem
from medcli.models.base import Base
from medcli.models.heads import Head, HeadKind
from medcli.models.lora_refusals import check_factors, check_shapes, refuse_modules
from medcli.models.lora_targets import target_modules

if TYPE_CHECKING:
    from peft import LoraConfig

    from medcli.data.target import Target
    from medcli.models.classifier import Classifier
    from medcli.plugin import LayerGroup

__all__ = ["DEFAULT", "Adapters", "LoraOptions", "Variant"]

Variant = Literal["lora", "dora", "rslora", "pissa"]
DEFAULT = "default"
HEAD = "medcli_head"
_PREFIX = "base_model.model."
_MERGE_TOLERANCE = 1e-5


@dataclass(frozen=True)
class LoraOptions:
    """What an adapter is like.

    Args:
        rank: r, of both factors.
        alpha: the factors' product is scaled by alpha / r (rsLoRA: alpha / √r); None for 4 r.
        dropout: before the factors.
        targets: see `target_modules`.
        variant: `lora` (Hu et al. 2022), `dora` (Liu et al. 2024: the length of every row learns by itself), `rslora`
            (Kalajdzievski 2023), `pissa` (Meng et al. 2024: the factors start as the largest singular directions).
    """

    rank: int = 8
    alpha: float | None = None
    dropout: float = 0.0
    targets: str | None = None
    variant: Variant = "lora"


@dataclass(frozen=True)
class _Entry:
    """One adapter: its configuration, the modules it is in, its head, and what that head predicts."""

    config: LoraConfig
    modules: tuple[str, ...]
    head: Head
    target: Target
    head_kind: HeadKind
    start: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


class Adapters:
    """The adapters of one classifier; kept by it, and made by its `add_adapter` and `load_adapter`.

    Args:
        base: the identity of its weights, or None where nobody knows.
        channels: of the images, by which a patch embedding is known.
    """

    def __init__(self, base: Base | None, *, channels: int = 3) -> None:
        self._tuner: Any = None
        self._entries: dict[str, _Entry] = {}
        self.active = ""
        self.base = base
        self.channels = channels

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the adapters, in the order in which they came."""
        return tuple(self._entries)

    @property
    def modules(self) -> tuple[str, ...]:
        """Full names of the modules that the active adapter is in."""
        return self._entries[self.active].modules

    @property
    def rank(self) -> int:
        """Rank of the active adapter's factors."""
        return int(self._entries[self.active].config.r)

    @property
    def alpha(self) -> float:
        """What its product is scaled by, times the rank (rsLoRA: its square root)."""
        return float(self._entries[self.active].config.lora_alpha)

    def add(
        self,
        classifier: Classifier,
        options: LoraOptions,
        roles: Mapping[str, Sequence[str]],
        *,
        name: str = DEFAULT,
        without: Sequence[str] = (),
    ) -> None:
        """Put a fresh adapter in and make it the active one; outputs stay what they were.

        Args:
            roles: the card's `lora_targets`.
            name: of the adapter.
            without: names of modules within the backbone that are not adapted.

        Raises:
            UsageProblem: nothing to adapt, a rank that is no rank or too large for a layer, PiSSA on a convolution.
        """
        if options.rank < 1:
            raise UsageProblem(f"a rank of {options.rank} is no rank", where="--rank", hint="--rank 8", code="bad-rank")
        plain = _unwrapped(classifier.backbone)
        chosen = [
            name_
            for name_ in target_modules(classifier.backbone, options.targets, roles, channels=self.channels)
            if name_ not in without
        ]
        if not chosen:
            raise UsageProblem(
                "every module that `--targets` names is in a frozen stage",
                where="--freeze-layers",
                hint="freeze fewer stages",
                code="no-targets",
            )
        adapted = {name_: plain[name_] for name_ in chosen}
        refuse_modules(adapted, options.rank, options.variant, beside_others=bool(self._entries))
        # The first adapter trains the classifier's own head; a further one must not share it.
        head = deepcopy(classifier.medcli_head) if self._entries else classifier.medcli_head
        self._inject(classifier, name, _config(options, [f"backbone.{one}" for one in chosen]), head)

    def add_loaded(
        self,
        classifier: Classifier,
        name: str,
        config: LoraConfig,
        tensors: Mapping[str, torch.Tensor],
        head: Head,
        *,
        target: Target,
        head_kind: HeadKind,
    ) -> None:
        """Put a stored adapter in and make it the active one; one of that name is replaced.

        Args:
            config: as stored.
            tensors: as stored, under PEFT's names, the head's among them.
            head: of the right kind; its weights are set from `tensors`.
            target: what that head predicts.
            head_kind: how its outputs become logits.

        Raises:
            UsageProblem: code `adapter-does-not-fit`, with names; the classifier is as before.
        """
        if any(entry.start for entry in self._entries.values()):
            raise UsageProblem(
                "a PiSSA adapter in training has changed the base weights, so no other can be loaded beside it",
                code="adapter-does-not-fit",
            )
        own = {key.removeprefix(_PREFIX): value for key, value in tensors.items()}
        head_state = {key.removeprefix(f"{HEAD}."): own.pop(key) for key in list(own) if key.startswith(f"{HEAD}.")}
        check_shapes(head_state, head.state_dict(), "head")
        check_factors(own, _unwrapped(classifier))
        if name in self._entries:
            self.remove(name)
        head.load_state_dict(head_state)
        previous = self.active
        self._inject(classifier, name, config, head, target=target, head_kind=head_kind)
        from peft import get_peft_model_state_dict, set_peft_model_state_dict

        expected = get_peft_model_state_dict(classifier, adapter_name=_key(name), save_embedding_layers=False)
        try:
            check_shapes(own, expected, "adapter")
        except UsageProblem:
            self.remove(name)
            if previous in self._entries:
                self.switch(classifier, previous)
            raise
        set_peft_model_state_dict(classifier, own, adapter_name=_key(name))

    def switch(self, classifier: Classifier, name: str) -> None:
        """Make another adapter the active one, head included.

        Raises:
            UsageProblem: there is none of that name.
        """
        if name not in self._entries:
            raise UsageProblem(
                f"there is no adapter `{name}`",
                hint=f"loaded: {', '.join(f'`{known}`' for known in self._entries)}",
                code="no-adapter",
            )
        entry = self._entries[name]
        self._tuner.set_adapter(_key(name))
        self.active = name
        place = next(classifier.backbone.parameters()).device
        classifier.medcli_head = entry.head.to(place).train(classifier.medcli_head.training)
        classifier.target, classifier.head_kind = entry.target, entry.head_kind
        classifier.medcli_head.requires_grad_(True)

    def remove(self, name: str) -> None:
        """Take an adapter out; the base is as it was before it came."""
        self._entries.pop(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the active one goes; the next is chosen by whoever removes it
            self._tuner.delete_adapter(_key(name))
        if not self._entries:
            self._tuner.unload()
            self._tuner, self.active = None, ""

    def tensors(
        self, classifier: nn.Module, state: Mapping[str, torch.Tensor] | None = None
    ) -> dict[str, torch.Tensor]:
        """The active adapter and its head under PEFT's names, for this classifier or a copy of it (an average).

        `state` is its state where the classifier cannot say it, because it lies on several devices.

        A PiSSA adapter becomes a plain one of twice the rank on the untouched base: B A - B0 A0 as one product.
        """
        from peft import get_peft_model_state_dict

        entry = self._entries[self.active]
        state = dict(classifier.state_dict() if state is None else state)
        found = get_peft_model_state_dict(
            classifier, state_dict=state, adapter_name=_key(self.active), save_embedding_layers=False
        )
        for module, (first, second) in entry.start.items():
            a, b = f"{module}.lora_A.weight", f"{module}.lora_B.weight"
            found[a] = torch.cat([found[a], first.to(found[a])], 0)
            found[b] = torch.cat([found[b], -second.to(found[b])], 1)
        found |= {name: value for name, value in state.items() if name.startswith(f"{HEAD}.")}
        return {f"{_PREFIX}{name}": value for name, value in found.items()}

    def config(self) -> dict[str, Any]:
        """The active adapter's configuration as PEFT stores it, with full names of modules."""
        entry = self._entries[self.active]
        document = entry.config.to_dict()
        if entry.start:
            document |= {
                "r": 2 * document["r"],
                "lora_alpha": 2 * document["lora_alpha"],
                "init_lora_weights": True,
            }
        document = {key: sorted(value) if isinstance(value, set) else value for key, value in document.items()}
        own = {"target_modules": sorted(entry.modules), "modules_to_save": [HEAD], "inference_mode": True}
        return {**document, **own}

    def merge(self, classifier: Classifier, images: torch.Tensor) -> float:
        """Add the active adapter to the base weights and take all wrappers out.

        Args:
            images: [B, C, S, S], on which the outputs before and after are compared.

        Returns:
            the largest difference of an output.

        Raises:
            RunFailure: code `merge-not-exact` when it is above 1e-5; the classifier is as before.
        """
        mode = classifier.training
        classifier.eval()
        layers = wrappers(classifier)
        kept = {name: layer.get_base_layer().weight.detach().clone() for name, layer in layers.items()}
        with torch.no_grad():
            before = classifier(images)
            for layer in layers.values():
                layer.merge(safe_merge=True, adapter_names=[_key(self.active)])
            after = classifier(images)
        finite = torch.isfinite(before)
        one, other = before[finite].tolist(), after[finite].tolist()
        difference = max((abs(a - b) for a, b in zip(one, other, strict=True)), default=float("nan"))
        # Beyond 1 the limit is relative: a float32 output of 50 cannot be told from another to 1e-5.
        limit = _MERGE_TOLERANCE * max(1.0, *map(abs, one), 1.0)
        if not difference <= limit:
            with torch.no_grad():
                for name, layer in layers.items():
                    layer.merged_adapters.clear()
                    layer.get_base_layer().weight.copy_(kept[name])
            classifier.train(mode)
            raise RunFailure(
                f"merged, the outputs differ by {difference:.2g}, more than {_MERGE_TOLERANCE:g}: nothing was merged",
                hint="a module may use its weight in another way than by calling the layer; choose other `--targets`",
                code="merge-not-exact",
            )
        self._tuner.unload()
        for parameter in classifier.parameters():
            parameter.requires_grad_(True)
        classifier.train(mode)
        return difference

    def settle(self, classifier: Classifier) -> None:
        """After a move: peft's DoRA reads the factors of convolutions as rows of memory, so they lie channels first."""
        if not any(entry.config.use_dora for entry in self._entries.values()):
            return
        for layer in wrappers(classifier).values():
            for factor in (*layer.lora_A.values(), *layer.lora_B.values()):
                factor.weight.data = factor.weight.data.contiguous(memory_format=torch.contiguous_format)

    def regroup(self, groups: Sequence[LayerGroup]) -> tuple[LayerGroup, ...]:
        """Layer groups of the backbone under the names that its parameters have inside the wrappers."""
        wrapped = {module.removeprefix("backbone.") for entry in self._entries.values() for module in entry.modules}

        def renamed(name: str) -> str:
            module, _, last = name.rpartition(".")
            return f"{module}.base_layer.{last}" if module in wrapped else name

        return tuple(replace(group, parameters=tuple(renamed(name) for name in group.parameters)) for group in groups)

    def _inject(
        self,
        classifier: Classifier,
        name: str,
        config: LoraConfig,
        head: Head,
        *,
        target: Target | None = None,
        head_kind: HeadKind | None = None,
    ) -> None:
        from peft.tuners.lora import LoraModel

        order = {module: place for place, (module, _) in enumerate(classifier.named_modules())}
        key = _key(name)
        modules = tuple(sorted(config.target_modules or (), key=lambda module: order.get(module, 0)))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about models of transformers, which a classifier is not
            if self._tuner is None:
                self._tuner = LoraModel(classifier, {key: config}, key)
            else:
                self._tuner.peft_config[key] = config
                self._tuner.inject_adapter(classifier, key)
        start = {}
        if str(config.init_lora_weights).startswith("pissa"):
            layers = wrappers(classifier)
            start = {
                one: (layer.lora_A[key].weight.detach().clone(), layer.lora_B[key].weight.detach().clone())
                for one, layer in layers.items()
            }
        self._entries[name] = _Entry(
            config, modules, head, target or classifier.target, head_kind or classifier.head_kind, start
        )
        self.switch(classifier, name)


def _config(options: LoraOptions, modules: list[str]) -> LoraConfig:
    from peft import LoraConfig

    alpha = 4 * options.rank if options.alpha is None else options.alpha
    return LoraConfig(
        r=options.rank,
        lora_alpha=alpha,  # peft divides it by the rank; any number will do
        lora_dropout=options.dropout,
        target_modules=modules,
        use_dora=options.variant == "dora",
        use_rslora=options.variant == "rslora",
        init_lora_weights="pissa" if options.variant == "pissa" else True,
    )


def _unwrapped(network: nn.Module) -> dict[str, nn.Module]:
    """Modules by the names they had before any adapter."""
    wrapped = wrappers(network)
    return {
        name: wrapped[name].get_base_layer() if name in wrapped else module for name, module in network.named_modules()
    }


def wrappers(network: nn.Module) -> dict[str, Any]:
    """peft's wrappers by name."""
    from peft.tuners.lora import LoraLayer

    return {name: module for name, module in network.named_modules() if isinstance(module, LoraLayer)}


def _key(name: str) -> str:
    """An adapter's name inside peft, where it becomes the name of a module and may hold no dot."""
    return "".join(letter if letter.isalnum() or letter in "-_" else f"_{ord(letter):x}_" for letter in name)
