"""What to tell someone who names an architecture that is not there: it is nearly always somewhere near."""

from __future__ import annotations

import os
from collections.abc import Mapping

from medcli.errors import UsageProblem, nearest
from medcli.registry.cards import read_card
from medcli.registry.discovery import ARCHITECTURES, DIFFERENCE_MODELS, Entry, Registry, discover, find
from medcli.registry.layout import install_line
from medcli.registry.namespaces import installed_version, read_names

__all__ = ["KNOWN_PLUGINS", "named_for_a_run", "unknown_name"]

KNOWN_PLUGINS: Mapping[str, str] = {
    "chexnet": "medcli-chexnet",
    "raddino": "medcli-raddino",
    "retfound-cfp": "medcli-retfound",
    "retfound-oct": "medcli-retfound",
    "retfound-mae-meh": "medcli-retfound",
    "retfound-mae-shanghai": "medcli-retfound",
    "retfound-dinov2-meh": "medcli-retfound",
    "retfound-dinov2-shanghai": "medcli-retfound",
    "retfound-green": "medcli-retfound",
    "echo": "medcli-echo",
    "longitudinal-encoder": "medcli-longitudinal",
    "longitudinal-mim": "medcli-longitudinal",
    "longitudinal-mim-big": "medcli-longitudinal",
    "longitudinal-subtract": "medcli-longitudinal",
    "longitudinal-subtract-big": "medcli-longitudinal",
}
"""What plugins published beside medcli offer, to name the one to install where a name is asked for."""


def unknown_name(registry: Registry, name: str, group: str) -> UsageProblem:
    """The error for a name that nothing installed offers: what is near, what is broken, what to install."""
    for problem in registry.problems:
        if problem.entry and name in {problem.entry, f"{problem.distribution}/{problem.entry}"}:
            return problem.as_error()
    entries = [entry for entry in registry.entries if entry.group == group]
    if name.endswith(("/", "/*")):
        stem = name.partition("/")[0]
        if any(entry.name == f"{stem}/*" for entry in entries):
            return UsageProblem(
                f"`{name}` names no single architecture",
                hint=f"press TAB after `{stem}/`, or write a name such as `{stem}/resnet18`",
                code="unknown-architecture",
            )
    known = [entry.qualified if "/" in name else entry.name for entry in entries if not entry.is_namespace]
    near = list(nearest(name, dict.fromkeys(known)))
    near += [f"timm/{name}" for entry in entries if entry.name == "timm/*" and name in _names_of(entry)]
    wanted, flag = ("difference model", " --difference") if group == DIFFERENCE_MODELS else ("architecture", "")
    others = [entry for entry in registry.entries if entry.group != group]
    if any(name in {entry.name, entry.qualified} for entry in others):
        own = "an architecture" if group == DIFFERENCE_MODELS else "a difference model"
        return UsageProblem(
            f"`{name}` is {own}, and {_article(wanted)} is asked for here",
            hint=f"`medcli models list{flag}` shows what is installed",
            code="unknown-architecture",
        )
    hint = f"`medcli models list{flag}` shows what is installed"
    if near:
        hint = "did you mean " + ", ".join(f"`{one}`" for one in near) + "? " + hint
    elsewhere = _offered_elsewhere(name, group)
    if elsewhere:
        hint = elsewhere
    broken = sorted({problem.distribution for problem in registry.problems})
    if broken:
        hint += "; broken and left out: " + ", ".join(f"`{one}`" for one in broken)
    return UsageProblem(f"unknown {wanted} `{name}`", hint=hint, code="unknown-architecture")


def named_for_a_run(name: str) -> UsageProblem | None:
    """The error for an architecture or a difference model where a run is asked for; None for any other name."""
    registry = discover()
    for group, what, training in (
        (ARCHITECTURES, "an architecture", "medcli train {} --data PATH"),
        (DIFFERENCE_MODELS, "a difference model", "medcli diffmap train --model {} --data PAIRS"),
    ):
        try:
            entry = find(registry, name, group)
        except UsageProblem:
            continue
        if entry.namespace and name.rpartition("/")[2] not in _names_of(entry):
            continue
        way = f"`{training.format(name)}` makes one; `medcli runs list` shows the runs here"
        card = read_card(entry)
        if card is not None and not card.trainable:
            way = "it has no weights to train: `medcli diffmap predict BASELINE FOLLOWUP` uses it without a run"
        return UsageProblem(
            f"`{name}` is {what}, and a run is asked for here",
            hint=way,
            code="not-a-run",
        )
    return None


def _article(thing: str) -> str:
    return f"an {thing}" if thing[0] in "aeiou" else f"a {thing}"


def _offered_elsewhere(name: str, group: str) -> str:
    """How to get a name of a plugin that is left out, or of a known one that is not installed."""
    chosen = os.environ.get("MEDCLI_PLUGINS", "").strip()
    if chosen:
        everything = discover({**os.environ, "MEDCLI_PLUGINS": "", "MEDCLI_STRICT_PLUGINS": ""})
        for entry in everything.entries:
            if entry.group == group and name in {entry.name, entry.qualified}:
                return f"`{entry.distribution}` offers it, and `MEDCLI_PLUGINS={chosen}` leaves it out"
    head, _, rest = name.partition("/")
    known = KNOWN_PLUGINS.get(rest or head)
    if known is None and rest and head.startswith("medcli-"):
        known = head
    return f"`{install_line((known,))}` offers it" if known and not installed_version(known) else ""


def _names_of(entry: Entry) -> tuple[str, ...]:
    return read_names(entry.reference, entry.namespace).names
