"""Which data sets were asked for: `NAME=PATH`, values for one of several sets, and `[data.NAME]` tables taken apart."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medcli.errors import UsageProblem, nearest
from medcli.settings.groups import DataSettings

__all__ = ["BUILT_IN", "Named", "named_sets"]

BUILT_IN = "synthetic/"
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
PER_SET = ("image_dir", "image_column", "label_column", "patient_column")
SINGLE = ("image_dir", "image_column", "patient_column")
PATH_KEYS = ("path", "data")


@dataclass(frozen=True)
class Named:
    """One data set as the user asked for it.

    Args:
        name: NAME, or the file's or folder's own.
        path: where it lies, or a built-in name.
        settings: the settings that hold for this set alone, without NAME= prefixes.
    """

    name: str
    path: str
    settings: DataSettings


def named_sets(settings: DataSettings, data_tables: Mapping[str, Mapping[str, Any]]) -> tuple[Named, ...]:
    """Take `NAME=PATH`, `NAME=VALUE` and `[data.NAME]` apart.

    Raises:
        UsageProblem: no data, one name for two sets, or several values where one fits.
    """
    if not settings.data:
        raise UsageProblem(
            "no data was named", hint="`--data PATH`, or `--data synthetic/chest` for a try", code="no-data"
        )
    split = [_name_and_path(text, data_tables) for text in settings.data]
    names = [name for name, _, _ in split]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UsageProblem(
            f"two data sets are called `{twice}`", hint=f"`--data {twice}-2=PATH` names one", code="duplicate-data"
        )
    unknown = {
        value.split("=", 1)[0]
        for field in PER_SET
        for value in getattr(settings, field)
        if _prefix(value) and any(given for _, _, given in split) and value.split("=", 1)[0] not in names
    }
    if unknown:
        first = sorted(unknown)[0]
        close = nearest(first, names, 1)
        raise UsageProblem(
            f"no data set is called `{first}`; there are {', '.join(f'`{name}`' for name in names)}",
            hint=f"did you mean `{close[0]}`?" if close else None,
            code="unknown-data",
        )
    return tuple(
        Named(name, path, _settings_for(name, settings, data_tables.get(name, {}) if given else {}))
        for name, path, given in split
    )


def _name_and_path(text: str, data_tables: Mapping[str, Mapping[str, Any]]) -> tuple[str, str, bool]:
    """Name, path, and whether the user gave the name."""
    if text in data_tables:
        table = data_tables[text]
        path = next((str(table[key]) for key in PATH_KEYS if key in table), None)
        if path is None:
            raise UsageProblem(f"table `[data.{text}]` has no `path`", code="missing-path")
        return text, path, True
    name, separator, path = text.partition("=")
    if separator and path and NAME.fullmatch(name) and not Path(text).exists():
        return name, path, True
    if text.startswith(BUILT_IN):
        return text.replace("/", "-"), text, False
    plain = Path(text)
    own = plain.resolve().name
    for suffix in (".gz", ".csv", ".tsv", ".txt", ".npz"):
        own = own[: -len(suffix)] if own.lower().endswith(suffix) and own.lower() != suffix else own
    return own or text, text, False


def _prefix(value: str) -> bool:
    name, separator, rest = value.partition("=")
    return bool(separator and rest and NAME.fullmatch(name))


def _settings_for(name: str, settings: DataSettings, table: Mapping[str, Any]) -> DataSettings:
    changes: dict[str, Any] = {}
    for field in PER_SET:
        values = getattr(settings, field)
        own = tuple(value.split("=", 1)[1] for value in values if _prefix(value) and value.split("=", 1)[0] == name)
        common = tuple(value for value in values if not _prefix(value))
        changes[field] = own or common or (values if not any(map(_prefix, values)) else ())
    known = set(DataSettings.__dataclass_fields__)
    for key, value in table.items():
        field = key.replace("-", "_")
        if field in PATH_KEYS:
            continue
        if field not in known:
            close = nearest(field, known, 1)
            raise UsageProblem(
                f"unknown key `{key}` in `[data.{name}]`" + (f"; did you mean `{close[0]}`?" if close else ""),
                code="unknown-key",
            )
        if field in PER_SET and changes[field]:
            continue  # a flag outranks a file
        is_tuple = isinstance(getattr(settings, field), tuple)
        changes[field] = tuple(value) if isinstance(value, list | tuple) else (value,) if is_tuple else value
    for field in SINGLE:
        if len(changes[field]) > 1:
            flag = "--" + field.replace("_", "-")
            raise UsageProblem(
                f"`{flag}` has {len(changes[field])} values for data set `{name}`: "
                + ", ".join(f"`{value}`" for value in changes[field]),
                hint=f"`{flag} {name}=VALUE` sets it for one data set",
                code="several-values",
            )
    return replace(settings, **changes)
