"""The JSON schema and the commented file say what the settings say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from medcli.settings.commands import COMMANDS
from medcli.settings.resolve import resolve
from medcli.settings.schema import commented_file, file_fields, json_schema

SCHEMA = json_schema()


def accepts(schema: Any, value: Any) -> bool:
    """A judge of the few JSON schema words that are used, written apart from the code that writes them."""
    if "anyOf" in schema and not any(accepts(part, value) for part in schema["anyOf"]):
        return False
    if "enum" in schema and value not in schema["enum"]:
        return False
    kinds: dict[str, Any] = {
        "object": dict,
        "array": list,
        "string": str,
        "boolean": bool,
        "integer": int,
        "number": (int, float),
    }
    kind = schema.get("type")
    if kind and (not isinstance(value, kinds[kind]) or (kind in ("integer", "number") and isinstance(value, bool))):
        return False
    if kind == "object":
        known, rest = schema.get("properties", {}), schema.get("additionalProperties", True)
        inner = [accepts(known[key], item) if key in known else rest for key, item in value.items()]
        inner = [
            accepts(rest, value[key]) if isinstance(one, dict) else one for key, one in zip(value, inner, strict=True)
        ]
        return all(inner) and all(key in value for key in schema.get("required", ()))
    if kind == "array":
        return all(accepts(schema["items"], item) for item in value)
    if kind in ("integer", "number"):
        return (
            value >= schema.get("minimum", value)
            and value <= schema.get("maximum", value)
            and ("exclusiveMinimum" not in schema or value > schema["exclusiveMinimum"])
        )
    return len(value) >= schema.get("minLength", 0) if kind == "string" else True


@pytest.mark.parametrize(
    ("document", "fine"),
    [
        ({}, True),
        ({"epochs": 3, "train": {"lr": 0.1, "architecture": "resnet18"}}, True),
        ({"epochs": 0}, False),
        ({"epochs": True}, False),
        ({"lr": 0}, False),
        ({"epoch": 3}, False),
        ({"train": {"top_k": 3}}, False),
        ({"evaluate": {"top_k": 3}}, True),
        ({"data": "a.npz"}, True),
        ({"data": ["a", "b"]}, True),
        ({"data": {"aptos": {"path": "a.csv", "image_dir": "x"}}}, True),
        ({"data": {"aptos": {"image_dir": "x"}}}, False),
        ({"resume": "x"}, False),
        ({"no_color": True}, False),
        ({"loss": "focal", "unset": ["image_size"]}, True),
        ({"unset": ["epochs"]}, False),
        ({"data-check": {"near_duplicates": True}}, True),
    ],
)
def test_the_schema_judges_as_the_reader_does(document: dict[str, Any], fine: bool, tmp_path: Path) -> None:
    import tomli_w

    assert accepts(SCHEMA, document) is fine
    (tmp_path / "medcli.toml").write_text(tomli_w.dumps(document))
    found = True
    for command in ("train", "evaluate", "data check"):
        try:
            resolve(command, {}, environ={"HOME": "/nowhere"}, cwd=tmp_path)
        except Exception:
            found = False
    assert found is fine


def test_the_schema_is_json_and_names_every_setting() -> None:
    assert json.loads(json.dumps(SCHEMA)) == SCHEMA
    assert set(file_fields()) <= set(SCHEMA["properties"])
    assert {command.table for command in COMMANDS.values() if command.layered} <= set(SCHEMA["properties"])
    assert all(SCHEMA["properties"][name].get("description") for name in file_fields() if name != "data")


def test_the_commented_file_says_nothing_until_it_is_edited(tmp_path: Path) -> None:
    (tmp_path / "medcli.toml").write_text("\n".join(commented_file()), encoding="utf-8")
    resolved = resolve("train", {}, environ={"HOME": "/nowhere"}, cwd=tmp_path)
    assert {origin.layer for origin in resolved.origins.values()} == {"default"}


def test_uncommented_it_sets_every_default(tmp_path: Path) -> None:
    fields = file_fields()
    written = list(commented_file())
    lines = [
        line.removeprefix("# ")
        for line in written[: written.index("# [data.NAME]")]
        if line.startswith("# ") and line[2:].partition(" = ")[0] in fields and " = " in line
    ]
    assert len(lines) == sum(field.default is not None for field in fields.values())
    (tmp_path / "medcli.toml").write_text("\n".join(lines), encoding="utf-8")
    for name in ("predict", "data check", "data inspect", "data synth", "evaluate"):
        resolved = resolve(name, {}, environ={"HOME": "/nowhere"}, cwd=tmp_path)
        for key in file_fields(COMMANDS[name]):
            assert resolved.values[key] == fields[key].default
