"""Names behind a prefix such as `timm/`, from a list made beforehand, so that completion needs no timm.

The list of the namespace `NAME/*` is the file `NAME_names.txt` beside the module its entry point names. Its first line
is `# LIBRARY VERSION SOURCE`, where SOURCE is a pattern such as `timm/{name}.{tag}` for the place of published weights.
Every other line is tab-separated: name, input side, mean, standard deviation, interpolation, crop, and `tag:licence`
pairs, or `tag:licence:SOURCE` where the weights lie elsewhere; fields after the name may be empty or missing. A line
`NAME.TAG` says where a tag differs from its name's line.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path

__all__ = ["ListedFacts", "NameList", "installed_version", "package_directory", "read_names"]


@dataclass(frozen=True)
class ListedFacts:
    """What a list says about one name; None and empty mean that it says nothing.

    Args:
        input_size: side in pixels.
        mean: one value per channel.
        std: one value per channel.
        interpolation: `bilinear` or `bicubic`.
        crop: share of the picture kept in evaluation.
        tags: weight tag to licence (empty where none is stated), the default first.
        elsewhere: weight tag to source, for those that do not lie where the list's pattern says.
    """

    input_size: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str
    crop: float | None
    tags: tuple[tuple[str, str], ...]
    elsewhere: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class NameList:
    """The names of a namespace, and the library release they were taken from.

    Args:
        library: distribution that has these names.
        version: its release.
        source: pattern of the place of published weights, with `{name}` and `{tag}`; may be empty.
        lines: as in the file, without the first.
    """

    library: str
    version: str
    source: str
    lines: tuple[str, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """All names, without weight tags."""
        return tuple(word for word in (line.partition("\t")[0] for line in self.lines) if "." not in word)

    def facts(self, name: str) -> ListedFacts | None:
        """What the list says about `name` or `name.tag`; None where it has neither it nor its name."""
        base = name.partition(".")[0]
        for wanted in dict.fromkeys((name, base)):
            for line in self.lines:
                if line.partition("\t")[0] == wanted:
                    return _facts(line)
        return None

    def tags(self, name: str) -> tuple[str, ...]:
        """The weight tags listed for `name`, the default first."""
        facts = self.facts(name)
        return tuple(tag for tag, _ in facts.tags) if facts else ()


def read_names(reference: str, namespace: str) -> NameList:
    """The list of a namespace whose factory is `reference`; empty where there is none or it cannot be read."""
    module = reference.partition(":")[0].split(".")
    directory = package_directory(module[0])
    if directory is None:
        return NameList(namespace, "", "", ())
    return _read(directory.joinpath(*module[1:-1], f"{namespace}_names.txt"), namespace)


def installed_version(distribution: str) -> str:
    """Version of an installed distribution, empty if there is none."""
    try:
        return version(distribution)
    except PackageNotFoundError:
        return ""


def package_directory(package: str) -> Path | None:
    """Folder of a top-level package, found without executing it; None if it cannot be found."""
    try:
        spec = find_spec(package)
    except (ImportError, ValueError, AttributeError):
        return None
    places = list(spec.submodule_search_locations or ()) if spec else []
    return Path(places[0]) if places else None


@lru_cache(maxsize=8)
def _read(file: Path, namespace: str) -> NameList:
    try:
        first, *lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError, ValueError):
        return NameList(namespace, "", "", ())
    library, release, source, *_ = [*first.removeprefix("#").split(), "", "", ""]
    return NameList(library, release, source, tuple(lines))


def _facts(line: str) -> ListedFacts:
    fields = [*line.split("\t"), *[""] * 6]
    # A source may hold colons of its own; the tag and the licence have none.
    triples = [[*text.split(":", 2), "", ""][:3] for text in fields[6].split()]
    return ListedFacts(
        int(fields[1]) if fields[1] else None,
        _numbers(fields[2]),
        _numbers(fields[3]),
        fields[4],
        float(fields[5]) if fields[5] else None,
        tuple((tag, licence) for tag, licence, _ in triples),
        tuple((tag, source) for tag, _, source in triples if source),
    )


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(number) for number in text.split(",")) if text else ()
