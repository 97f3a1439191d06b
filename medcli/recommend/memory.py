"""The largest sensible batch: what somebody reports for such a GPU, held against an estimate of our own."""

from __future__ import annotations

from dataclasses import dataclass

from medcli.plugin import ArchitectureCard
from medcli.recommend.rules import Rules
from medcli.recommend.situation import Situation

__all__ = ["Batch", "estimate", "largest_batch"]

SIZES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
CPU_BATCH = 16
FALLBACK = 16

USABLE = 0.85  # of a GPU's memory: the rest goes to its context, to fragments and to what the desktop holds
CONTEXT_MB = 500
HALVED = 0.6  # mixed precision keeps most activations in 16 bits, and some in 32
TRAINED_BYTES = 16  # per parameter: weight, gradient and two moments of AdamW, 32 bits each
ADAPTED_BYTES = 4  # LoRA keeps the weights and next to nothing else
FORWARD_SHARE = 0.15  # a frozen backbone keeps nothing for a backward pass, only its current layers
STEPS_PER_EPOCH = 20


@dataclass(frozen=True)
class Batch:
    """Images per batch.

    Args:
        size: the number.
        reported: who reports it, or empty.
        estimated: whether the number is an estimate of ours.
        why: in words, where the number comes from.
    """

    size: int
    reported: str
    estimated: bool
    why: str


def largest_batch(card: ArchitectureCard, strategy: str, image_size: int, now: Situation, rules: Rules) -> Batch:
    """The largest sensible batch for a network on this machine.

    A reported batch counts unless the estimate for these pictures is lower. Small data get smaller batches.
    """
    batch = _fitting(card, strategy, image_size, now, rules)
    if now.images is not None:
        most = _floor(max(8, now.images // STEPS_PER_EPOCH))
        if most < batch.size:
            return Batch(most, "", False, f"no more with {now.images:,} images, for the sake of enough steps an epoch")
    return batch


def estimate(card: ArchitectureCard, strategy: str, image_size: int, gpu_gb: float, rules: Rules) -> int | None:
    """How many images fit by our estimate (0 for none), or None where too little is known about the network."""
    per_image = _kept_mb(card, image_size, rules)
    if per_image is None or card.params is None:
        return None
    per_parameter = ADAPTED_BYTES if strategy in {"frozen", "lora"} else TRAINED_BYTES
    room = USABLE * gpu_gb * 1000 - CONTEXT_MB - per_parameter * card.params / 1e6
    share = HALVED * (FORWARD_SHARE if strategy == "frozen" else 1.0)
    return _floor(room / (per_image * share))


def _fitting(card: ArchitectureCard, strategy: str, image_size: int, now: Situation, rules: Rules) -> Batch:
    if now.cpu:
        return Batch(CPU_BATCH, rules.short("csi"), False, f"for machines without a GPU: {rules.short('csi')}")
    fits = estimate(card, strategy, image_size, now.gpu_gb, rules)
    # Who reports a batch for LoRA says so in words; it is no batch for training everything.
    notes = [
        note
        for note in card.memory
        if note.gpu_gb <= now.gpu_gb
        and (strategy == "frozen" or ("lora" in note.source.lower()) == (strategy == "lora"))
    ]
    if notes:
        best = max(notes, key=lambda note: (note.batch_size, note.gpu_gb))
        at = f"{best.gpu_gb:g} GB at {card.input_size} px" if card.input_size else f"{best.gpu_gb:g} GB"
        if fits is None or fits >= best.batch_size:
            return Batch(best.batch_size, best.source, False, f"reported for {at}: {best.source}")
        why = f"an estimate; {best.batch_size} is reported for {at}, which seems too much: {best.source}"
        return Batch(max(1, fits), "", True, why)
    if fits is None:
        return Batch(FALLBACK, "", True, "a careful guess: nobody reports one, and its card says too little")
    return Batch(max(1, fits), "", True, "an estimate, nobody reports one")


def _kept_mb(card: ArchitectureCard, image_size: int, rules: Rules) -> float | None:
    """Megabytes in 32-bit numbers that a training step keeps for one picture."""
    if card.gmacs is None or not card.input_size:
        return None
    if card.family in rules.activations_by_width and card.feature_dim:
        own = rules.activations_by_width[card.family] * card.gmacs / card.feature_dim
    elif card.family in rules.activations:
        own = rules.activations[card.family] * card.gmacs
    else:
        return None
    return own * (image_size / card.input_size) ** 2


def _floor(number: float) -> int:
    return max((size for size in SIZES if size <= number), default=0)
