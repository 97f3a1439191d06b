"""Which architectures are installed, by the names in package metadata alone, for built-ins and plugins alike.

Nothing of a plugin is imported before `load_factory` is asked for it, and what is broken becomes a `Problem`, so that
it can never break anything but itself.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Literal

from medcli.errors import MedcliError, Problems, RunFailure, UsageProblem, nearest
from medcli.registry.namespaces import installed_version, read_names

if TYPE_CHECKING:
    from medcli.plugin import ArchitectureFactory

__all__ = [
    "ARCHITECTURES",
    "CORE",
    "DIFFERENCE_MODELS",
    "Entry",
    "Problem",
    "Registry",
    "architecture_names",
    "discover",
    "entry_fault",
    "find",
    "load_factory",
]

ARCHITECTURES = "medcli.architectures"
DIFFERENCE_MODELS = "medcli.difference_models"
CORE = "medcli"

_RESERVED = frozenset({"timm", "synthetic"})
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*(/\*)?")
_REFERENCE = re.compile(r"([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*):([A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)")


@dataclass(frozen=True)
class Entry:
    """One name that an installed distribution offers.

    Args:
        name: bare name (`resnet18`), a namespace (`timm/*`), or a name in one (`timm/resnet18`).
        distribution: normalised name of the distribution, such as `medcli-echo`.
        version: its version.
        group: entry-point group.
        reference: `package.module:factory`.
        variant: the part of a namespaced name that the factory takes as `name`; empty for others.
    """

    name: str
    distribution: str
    version: str
    group: str
    reference: str
    variant: str = ""

    @property
    def qualified(self) -> str:
        """The name that is never ambiguous: `distribution/name`."""
        return f"{self.distribution}/{self.name}"

    @property
    def is_namespace(self) -> bool:
        """Whether this stands for all names behind a prefix."""
        return self.name.endswith("/*")

    @property
    def namespace(self) -> str:
        """`timm` for `timm/*` and `timm/resnet18`, empty for other names."""
        return self.name.partition("/")[0] if self.is_namespace or self.variant else ""

    @property
    def card_name(self) -> str:
        """The name of its table in the card: that of the whole namespace for a name in one."""
        return f"{self.namespace}/*" if self.variant else self.name

    @property
    def package(self) -> str:
        """The top-level package, where the card lies."""
        return self.reference.partition(":")[0].partition(".")[0]

    @property
    def origin(self) -> str:
        """Distribution and version, as error messages name them."""
        return f"{self.distribution} {self.version}"


@dataclass(frozen=True)
class Problem:
    """Something broken in a plugin, kept as a value.

    Args:
        distribution: of the plugin; a file name where even that cannot be read.
        version: its version; empty if unknown.
        entry: the name concerned; empty for the whole distribution.
        stage: where it shows: `discover`, `card`, `load`, `contract` or `build`.
        cause: one sentence.
        hint: what to do.
    """

    distribution: str
    version: str
    entry: str
    stage: Literal["discover", "card", "load", "contract", "build"]
    cause: str
    hint: str = ""

    def as_error(self) -> UsageProblem:
        """The same as an error, for those who asked for exactly this item."""
        name = f"`{self.entry}`: " if self.entry else ""
        where = f"{self.distribution} {self.version}".strip()
        return UsageProblem(f"{name}{self.cause}", where=where, hint=self.hint or None, code="plugin-problem")


@dataclass(frozen=True)
class Registry:
    """What is installed: entries sorted by distribution and name, and what is wrong with some plugins."""

    entries: tuple[Entry, ...]
    problems: tuple[Problem, ...] = ()

    def named(self, group: str = ARCHITECTURES) -> tuple[Entry, ...]:
        """The entries of a group that stand for one architecture each (no namespaces)."""
        return tuple(entry for entry in self.entries if entry.group == group and not entry.is_namespace)

    def ambiguous(self, group: str = ARCHITECTURES) -> frozenset[str]:
        """Bare names that more than one distribution offers."""
        names = [entry.name for entry in self.entries if entry.group == group]
        return frozenset(name for name in names if names.count(name) > 1)


def discover(environ: Mapping[str, str] | None = None) -> Registry:
    """Read the names from the metadata of the installed distributions.

    Args:
        environ: `MEDCLI_PLUGINS` (`none`, or names of distributions) limits which plugins are seen;
            `MEDCLI_STRICT_PLUGINS=1` turns problems, those of cards included, into an error.

    Raises:
        UsageProblem: `MEDCLI_PLUGINS` names a distribution that is not installed or offers nothing.
        Problems: strict mode, and some plugin is broken.
    """
    environ = os.environ if environ is None else environ
    entries: dict[str, list[Entry]] = {}
    problems: list[Problem] = []
    for distribution in importlib.metadata.distributions():
        found = _read_distribution(distribution, problems)
        # The first on the path is the one that Python imports; a second copy of the same distribution is hidden by it.
        if found and found[0].distribution not in entries:
            entries[found[0].distribution] = found
    allowed = _allowed(environ, frozenset(entries) | {problem.distribution for problem in problems})
    kept = [entry for name, found in entries.items() if allowed is None or name in allowed for entry in found]
    seen = [problem for problem in problems if allowed is None or problem.distribution in allowed]
    registry = Registry(
        tuple(sorted(kept, key=lambda entry: (entry.distribution, _natural(entry.name), entry.name, entry.group))),
        tuple(sorted(seen, key=lambda problem: (problem.distribution, problem.entry, problem.cause))),
    )
    if environ.get("MEDCLI_STRICT_PLUGINS", "").lower() in {"1", "true", "yes", "on"}:
        _refuse_problems(registry)
    return registry


def find(registry: Registry, name: str, group: str = ARCHITECTURES) -> Entry:
    """The entry of that bare name (`resnet50`), namespaced name (`timm/resnet50`) or qualified one (`medcli/resnet50`).

    Raises:
        UsageProblem: `unknown-architecture` with the nearest names, `ambiguous-architecture` with the qualified ones,
            or the plugin's own problem where it is known.
    """
    entries = [entry for entry in registry.entries if entry.group == group]
    matches = [entry for entry in entries if entry.name == name and not entry.is_namespace]
    head, _, rest = name.partition("/")
    rest = "" if rest == "*" else rest
    if not matches and rest:
        matches = [_variant(entry, rest) for entry in entries if entry.name == f"{head}/*"]
    if not matches and rest:
        own = [entry for entry in entries if entry.distribution == _normalised(head)]
        matches = [entry for entry in own if entry.name == rest and not entry.is_namespace]
        space, inner, variant = rest.partition("/")
        if not matches and inner and variant:
            matches = [_variant(entry, variant) for entry in own if entry.name == f"{space}/*"]
    if len(matches) == 1:
        return matches[0]
    if matches:
        names = ", ".join(f"`{entry.qualified}`" for entry in matches)
        raise UsageProblem(
            f"`{name}` is ambiguous: several installed distributions offer it",
            where=", ".join(entry.origin for entry in matches),
            hint=f"use one of {names}",
            code="ambiguous-architecture",
        )
    from medcli.registry.unknown import unknown_name

    raise unknown_name(registry, name, group)


def load_factory(entry: Entry) -> ArchitectureFactory:
    """Import the factory: the first and only step that runs a plugin's code.

    For a name in a namespace the factory already knows its `name`.

    Raises:
        UsageProblem: the plugin's card asks for another version of the plugin API, or for packages that are missing.
        RunFailure: the module cannot be imported, or names no callable; the cause is chained.
    """
    from medcli.registry.card_file import check_api, required
    from medcli.registry.requirements import refuse_unmet

    check_api(entry.package, entry.origin)
    refuse_unmet(entry.name, required(entry.package, entry.card_name), entry.origin)
    module_name, _, attributes = entry.reference.partition(":")
    hint = "`medcli models list` shows what else is installed"
    if entry.distribution != CORE:
        hint = f"reinstall or remove `{entry.distribution}`; `--debug` shows its traceback"
    try:
        factory = importlib.import_module(module_name)
        for attribute in attributes.split("."):
            factory = getattr(factory, attribute)
    except (Exception, SystemExit) as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise RunFailure(
            f"`{entry.name}` cannot be loaded: {reason}",
            where=f"{entry.origin}, entry point `{entry.reference}`",
            hint=hint,
            code="broken-plugin",
        ) from error
    if not callable(factory):
        raise RunFailure(
            f"`{entry.name}` cannot be loaded: `{entry.reference}` is no function",
            where=entry.origin,
            hint=hint,
            code="broken-plugin",
        )
    loaded: ArchitectureFactory = partial(factory, name=entry.variant) if entry.variant else factory
    return loaded


def architecture_names(prefix: str = "", environ: Mapping[str, str] | None = None) -> list[str]:
    """Names that begin with `prefix`, for completion: no card is read and nothing is ever raised.

    A namespace is offered as `timm/` until the prefix reaches into it; an ambiguous name in its qualified forms.
    """
    try:
        registry = discover({**(os.environ if environ is None else environ), "MEDCLI_STRICT_PLUGINS": ""})
    except MedcliError:
        return []
    entries = [entry for entry in registry.entries if entry.group == ARCHITECTURES]
    ambiguous = registry.ambiguous()
    names: dict[str, None] = {}
    for entry in entries:
        if entry.is_namespace:
            stem = entry.name.removesuffix("*")
            if prefix.startswith(stem):
                names.update(dict.fromkeys(stem + name for name in read_names(entry.reference, entry.namespace).names))
            else:
                names[stem] = None
        else:
            qualified = "/" in prefix or entry.name in ambiguous
            names[entry.qualified if qualified else entry.name] = None
    return [name for name in names if name.startswith(prefix)]


def _read_distribution(distribution: importlib.metadata.Distribution, problems: list[Problem]) -> list[Entry]:
    """The entries of one distribution; what is wrong with it is appended to `problems`."""
    name, version = "", ""
    try:
        text = distribution.read_text("entry_points.txt")
        if not text or (ARCHITECTURES not in text and DIFFERENCE_MODELS not in text):
            return []
        metadata = distribution.metadata  # parsed anew at every access
        name, version = _normalised(metadata["Name"] or ""), metadata["Version"] or ""
        if not name or not version:
            raise ValueError("its metadata has no name or no version")
        points = [point for point in distribution.entry_points if point.group in {ARCHITECTURES, DIFFERENCE_MODELS}]
    except Exception as error:  # whatever a broken installation raises, it must stop nothing else
        folder = getattr(distribution, "_path", None)
        label = name or _normalised(str(getattr(folder, "name", "")).partition("-")[0]) or "unknown distribution"
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        problems.append(
            Problem(label, version, "", "discover", f"its metadata cannot be read ({reason})", f"reinstall `{label}`")
        )
        return []
    entries: dict[tuple[str, str], Entry] = {}
    for point in points:
        cause = entry_fault(point.name, point.value, name)
        if not cause and (point.group, point.name) in entries:
            cause = "the distribution offers this name twice; only the first counts"
        if cause:
            hint = f"tell the authors of `{name}`"
            problems.append(Problem(name, version, point.name, "discover", cause, hint))
            continue
        reference = point.value.partition("[")[0].replace(" ", "")
        entries[point.group, point.name] = Entry(point.name, name, version, point.group, reference)
    return list(entries.values())


def entry_fault(name: str, value: str, distribution: str) -> str:
    """What is wrong with one entry point of a distribution, `name = value`; empty if nothing is."""
    if not _NAME.fullmatch(name):
        return "names are lower-case letters, digits, `-`, `_` and `.`, with `/*` at the end for a namespace"
    if name.removesuffix("/*") in _RESERVED and distribution != CORE:
        return f"the name `{name.removesuffix('/*')}` is reserved for medcli itself"
    if not _REFERENCE.fullmatch(value.partition("[")[0].replace(" ", "")):
        return f"`{value}` is no reference of the form `package.module:function`"
    return ""


def _allowed(environ: Mapping[str, str], known: frozenset[str]) -> frozenset[str] | None:
    """The distributions that `MEDCLI_PLUGINS` lets through, or None for all; medcli's own are never left out."""
    text = environ.get("MEDCLI_PLUGINS", "").strip()
    if not text:
        return None
    if text.lower() == "none":
        return frozenset({CORE})
    wanted = [_normalised(word) for word in text.split(",") if word.strip()]
    for word in wanted:
        if word not in known:
            near = nearest(word, known)
            listed = ", ".join(f"`{name}`" for name in near or sorted(known))
            hint = f"did you mean {listed}?" if near else f"installed: {listed}"
            raise UsageProblem(
                f"no installed plugin is called `{word}`",
                where="MEDCLI_PLUGINS",
                hint=hint,
                code="unknown-plugin",
            )
    return frozenset({CORE, *wanted})


def _refuse_problems(registry: Registry) -> None:
    from medcli.registry.cards import card_problems

    problems = (*registry.problems, *card_problems(registry))
    if problems:
        raise Problems(problem.as_error() for problem in problems)


def _variant(entry: Entry, variant: str) -> Entry:
    """A name within a namespace, checked against the committed list where that list fits what is installed."""
    listed = read_names(entry.reference, entry.namespace)
    base, _, tag = variant.partition(".")
    known = base in listed.names and (not tag or tag in listed.tags(base))
    # A newer library may have names that the list lacks; then only the factory can tell.
    if not known and listed.names and installed_version(listed.library) in {listed.version, ""}:
        choices = [f"{base}.{one}" for one in listed.tags(base)] if base in listed.names else listed.names
        near = nearest(variant, choices)
        offered = ", ".join(f"`{entry.namespace}/{name}`" for name in near)
        raise UsageProblem(
            f"unknown architecture `{entry.namespace}/{variant}`: {listed.library} {listed.version} has no such name",
            hint=f"did you mean {offered}?" if near else f"press TAB after `{entry.namespace}/` for the names",
            code="unknown-architecture",
        )
    return replace(entry, name=f"{entry.namespace}/{variant}", variant=variant)


def _normalised(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name.strip()).lower()


def _natural(name: str) -> tuple[tuple[str, int], ...]:
    """Sorts `resnet18` before `resnet101`."""
    return tuple((text, int(number or 0)) for text, number in re.findall(r"(\D+)(\d*)", name))
