"""`models verify`: what a weight file is, whether a card knows it, and how much of it an architecture can use."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medcli.cli.options import ArchitectureOrFile, Flags
from medcli.cli.output import Output
from medcli.errors import ExitCode, MedcliError, UsageProblem
from medcli.registry.cards import parse_options, read_card
from medcli.registry.catalogue import Listed, catalogue
from medcli.registry.discovery import Registry, discover, find

if TYPE_CHECKING:
    from medcli.models.weight_facts import WeightFacts
    from medcli.models.weight_fit import Fit, Listing

__all__ = ["verify"]

_WIDTH = 10
_SHOWN = 5


def verify(subject: ArchitectureOrFile, flags: Flags) -> ExitCode:
    """Say what a weight file is and what it fits.

    A file: its format, size, checksum and tensors, the cards that know it, and the installed architectures it fits. An
    architecture: the same for the file of `--weights`, or of its own weights in the cache, and how many of the
    network's tensors it sets. Nothing in a file is ever run. Status 4: it does not fit, or is not what the card says.

    Examples:
        medcli models verify densenet121.safetensors
        medcli models verify densenet121 --weights densenet121.safetensors
        medcli models verify resnet18 --weights in1k --json
    """
    output = Output(flags.output(), "models verify")
    registry = discover()
    is_file = _is_file(registry, subject)
    return (
        _verify_file(output, registry, subject, flags)
        if is_file
        else _verify_architecture(output, registry, subject, flags)
    )


def _is_file(registry: Registry, subject: str) -> bool:
    path = Path(subject).expanduser()
    if path.is_file():
        return True
    try:
        find(registry, subject)
    except MedcliError:
        from medcli.models.weight_files import WEIGHT_SUFFIXES

        if path.is_dir() or path.name.lower().endswith(WEIGHT_SUFFIXES):
            return True
        raise
    return False


def _verify_file(output: Output, registry: Registry, subject: str, flags: Flags) -> ExitCode:
    from medcli.models.weight_facts import weight_facts
    from medcli.models.weight_fit import candidates, fit, listings

    idle = [name for name in ("weights", "arch_opt", "image_size", "in_channels") if name in flags.given]
    if idle:
        flag = f"--{idle[0].replace('_', '-')}"
        raise UsageProblem(
            f"`{flag}` belongs to an architecture, and `{subject}` is a file",
            where=flag,
            hint=f"medcli models verify ARCH --weights {subject}",
            code="idle-flag",
        )
    facts = weight_facts(Path(subject).expanduser())
    listed = catalogue(registry).listed
    known = listings(facts, listed)
    tried: list[tuple[Listed, Fit]] = []
    for one in candidates(facts, listed):
        try:
            tried.append((one, fit(one.entry, one.card, str(facts.path), outline=True)))
        except MedcliError as error:
            output.warn(f"`{one.label}` was not compared: {error.message}")
    matching = [(one.label, result) for one, result in tried if result.report]
    result = {
        "file": facts,
        "listed": known,
        "fits": [{"architecture": label, "report": one.report} for label, one in matching],
        "compared": [one.label for one, _ in tried],
    }
    lines = _facts_lines(facts, known)
    lines += ["", *(f"fits {label}: {_sentence(one)}" for label, one in matching)]
    if not matching:
        others = f" ({', '.join(one.label for one, _ in tried)} were compared)" if tried else ""
        lines.append(f"fits no installed architecture of about its size as it is{others}")
        lines.append("one of timm's networks, or one with options, is compared when it is named: "
                     f"medcli models verify ARCH --weights {subject}")  # fmt: skip
    output.answer(result, "\n".join(lines), identifier="\n".join(label for label, _ in matching))
    return ExitCode.DONE


def _verify_architecture(output: Output, registry: Registry, subject: str, flags: Flags) -> ExitCode:
    from medcli.models.pretrained import factory_weights
    from medcli.models.weight_facts import weight_facts
    from medcli.models.weight_fit import Shape, fit, listings
    from medcli.registry.weight_cache import chosen_weights

    given = flags.given
    entry = find(registry, subject)
    card = read_card(entry)
    asked = given.get("weights")
    try:
        weights = factory_weights(entry.name, card, asked, pretrained=True)
    except UsageProblem as error:
        error.where = error.where if asked else None
        raise
    if weights is None:
        raise UsageProblem(
            f"`{entry.name}` has no published weights that could be verified",
            hint=f"medcli models verify {subject} --weights FILE",
            code="no-weights",
        )
    path = Path(weights).expanduser()
    facts = weight_facts(path) if path.exists() else None
    shape = Shape(
        given.get("image_size"), given.get("in_channels"), parse_options(entry, card, given.get("arch_opt", ()))
    )
    outcome = fit(entry, card, str(path) if facts else weights, shape)
    if facts is None and outcome.report and Path(outcome.report.source).is_file():
        facts = weight_facts(Path(outcome.report.source))  # what the factory made of the tag
    known = listings(facts, catalogue(registry).listed) if facts else ()
    tag = chosen_weights(entry.name, card, asked, pretrained=True)
    stated = tag.sha256.lower() if tag else ""
    changed = bool(facts and stated and facts.sha256 != stated)
    result: dict[str, Any] = {
        "architecture": entry.qualified,
        "file": facts,
        "listed": known,
        "stated_sha256": stated or None,
        "fits": outcome.report is not None or not outcome.problem,
        "report": outcome.report,
        "problem": outcome.problem or None,
        "head_classes": outcome.head_classes,
    }
    lines = [*_facts_lines(facts, known), ""] if facts else []
    if changed:
        lines.append(f"is not what the card says of `{tag.tag if tag else ''}`: its sha256 should be {stated}")
    lines.append(outcome.problem or f"fits {entry.name}: {_sentence(outcome)}")
    status = ExitCode.LIMIT if outcome.problem or changed else ExitCode.DONE
    output.answer(result, "\n".join(lines), identifier="" if outcome.problem else entry.qualified, status=status)
    return status


def _sentence(fit: Fit) -> str:
    if fit.report is None:
        return "it takes them; it does not say how many tensors they set"
    head = f"; the head that came along has {fit.head_classes} classes" if fit.head_classes else ""
    return fit.report.sentence().replace(fit.report.source, "the file") + head


def _facts_lines(facts: WeightFacts, known: Sequence[Listing]) -> list[str]:
    types = ", ".join(f"{count} of {name}" if len(facts.types) > 1 else name for name, count in facts.types.items())
    rows = [
        ("file", str(facts.path)),
        ("format", facts.kind),
        ("size", f"{facts.size / 1e6:.1f} MB ({facts.size:,} bytes)"),
        ("sha256", facts.sha256 or "of several files: none"),
        ("tensors", f"{facts.tensors:,} ({types}), {facts.parameters:,} parameters"),
    ]
    if facts.wrappers:
        rows.append(("wrapped in", " → ".join(facts.wrappers)))
    if facts.prefix:
        rows.append(("prefix", f"every name begins with `{facts.prefix}`"))
    if facts.beside:
        more = ", …" if len(facts.beside) > _SHOWN else ""
        rows.append(("beside", ", ".join(facts.beside[:_SHOWN]) + more))
    how = {"checksum": "same checksum", "place": "its place in the cache", "name": "same file name only"}
    listed = [f"{one.architecture} {one.tag} ({how[one.by]})" for one in known]
    rows.append(("listed as", ", ".join(listed) or "no card of an installed architecture knows it"))
    return [f"{name:<{_WIDTH}} {text}" for name, text in rows]
