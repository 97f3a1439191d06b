"""`models fetch`: published weights into the cache of this machine, because a person asked for exactly that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from medcli.cli.options import ArchitectureArgument, Flags
from medcli.cli.output import Output
from medcli.errors import UsageProblem
from medcli.plugin import ArchitectureCard, WeightCard
from medcli.registry.cards import read_card
from medcli.registry.discovery import Entry, discover, find

if TYPE_CHECKING:
    from collections.abc import Callable

    from medcli.registry.fetch import Fetched

__all__ = ["fetch_weights"]

_WIDTH = 10
_MEGABYTE = 1e6


def fetch_weights(architecture: ArchitectureArgument, flags: Flags) -> None:
    """Download an architecture's published weights.

    The card's default weights, or those of `--weights TAG`, go over https into the cache, and their checksum is
    compared with what the card or the hub states. What is there already is only checked. This is the one command of
    medcli that downloads; `HF_HOME`, `HF_ENDPOINT` and `HF_TOKEN` mean what they mean to every tool of the hub.

    Examples:
        medcli models fetch resnet18
        medcli models fetch vit_base_patch16_224 --weights dino
        medcli models fetch timm/resnet26d.bt_in1k --json
    """
    from medcli.registry.fetch import fetch

    output = Output(flags.output(), "models fetch")
    entry = find(discover(), architecture)
    weights = _chosen(entry, read_card(entry), flags.given.get("weights"))
    fetched = fetch(entry.name, weights, _counter(output))
    if not fetched.confirmed_by:
        output.warn(f"nobody states a checksum of this file, so it is unverified; its sha256 is {fetched.sha256}")
    output.answer(
        {
            "architecture": entry.qualified,
            "tag": weights.tag,
            **fetched.__dict__,
            "licence": weights.licence or None,
            "gated": weights.gated,
        },
        lambda: _page(entry, weights, fetched),
        identifier=str(fetched.path),
    )


def _chosen(entry: Entry, card: ArchitectureCard | None, tag: str | None) -> WeightCard:
    from medcli.registry.weight_cache import unknown_weights

    if card is None or not card.weights:
        raise UsageProblem(
            f"no published weights are known for `{entry.name}`",
            where=entry.origin,
            hint="give a file with `--weights FILE` where you train or evaluate",
            code="no-weights",
        )
    if not tag and not card.default_weights:
        tags = ", ".join(f"`{one.tag}`" for one in card.weights)
        raise UsageProblem(
            f"`{entry.name}` has several weights and none of them is the default",
            hint=f"choose one with `--weights`: {tags}",
            code="no-weights",
        )
    known = card.weight(tag or card.default_weights)
    if known is None:
        raise unknown_weights(entry.name, card, tag or card.default_weights)
    return known


def _counter(output: Output) -> Callable[[int, int], None]:
    """Megabytes on a terminal; the total is known only once the server answers."""
    show: Callable[[int], None] | None = None

    def count(done: int, total: int) -> None:
        nonlocal show
        if show is None:
            show = output.progress("MB", round(total / _MEGABYTE))
        show(round(done / _MEGABYTE))

    return count


def _page(entry: Entry, weights: WeightCard, fetched: Fetched) -> str:
    stated = {"card": "as the card states", "hub": "as the hub states", "": "unverified: nobody states one"}
    rows: list[tuple[str, Any]] = [
        ("weights", f"{weights.tag} of {entry.name}" + ("" if fetched.downloaded else ", were here already")),
        ("file", fetched.path),
        ("size", f"{fetched.size / _MEGABYTE:.1f} MB ({fetched.size:,} bytes)"),
        ("sha256", f"{fetched.sha256} ({stated[fetched.confirmed_by]})"),
        ("source", fetched.source),
        ("licence", weights.licence or "not stated"),
        ("next", f"medcli train {entry.name} --weights {weights.tag} --data …"),
    ]
    return "\n".join(f"{name:<{_WIDTH}}{value}" for name, value in rows)
