"""A run's config.toml: whatever was set comes back, and read as `--config` it makes the same settings."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from medcli.errors import MedcliError, Problems, UsageProblem
from medcli.settings.commands import COMMANDS
from medcli.settings.fields import Field
from medcli.settings.layers import LAYERS, Origin
from medcli.settings.resolve import Resolved, resolve
from medcli.settings.saved import parse_saved, render_saved
from medcli.settings.toml_files import parse_toml

KEPT = {
    name: field
    for name, field in COMMANDS["train"].fields.items()
    if not field.option.flag_only and field.option.in_file
}
NOBODY = {"HOME": "/nowhere"}
texts = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12) | st.sampled_from(
    ['a,b "c"', "it's", "ü=\\n", "# no comment", "[x]", "\u2028", "\x7f\x00\r\n", "true", "3", "'''", '"""']
)


def one(field: Field) -> st.SearchStrategy[Any]:
    low, high = field.option.minimum, field.option.maximum
    if field.choices:
        return st.sampled_from(field.choices)
    if field.base is bool:
        return st.booleans()
    if field.base is int:
        return st.integers(int(low) if low is not None else -(2**40), int(high) if high is not None else 2**40)
    if field.base is float:
        return st.floats(low, high, exclude_min=field.option.exclusive, allow_nan=False, allow_infinity=False)
    return texts


def value(field: Field) -> st.SearchStrategy[Any]:
    strategy = one(field)
    if field.many:
        strategy = st.lists(strategy, max_size=3).map(tuple)
    return st.none() | strategy if field.optional else strategy


origins = st.builds(Origin, st.sampled_from(LAYERS[1:]), texts)


@st.composite
def resolveds(draw: st.DrawFn) -> Resolved:
    chosen = draw(st.sets(st.sampled_from(sorted(KEPT)), max_size=12))
    values = {name: field.default for name, field in COMMANDS["train"].fields.items()}
    values |= {name: draw(value(KEPT[name])) for name in chosen}
    where = {name: Origin("default") for name in values} | {name: draw(origins) for name in chosen}
    tables: Mapping[str, Mapping[str, Any]] = draw(
        st.dictionaries(
            texts,
            st.fixed_dictionaries(
                {"path": texts}, optional={"label_column": st.tuples(texts, texts), "task": st.just("ordinal")}
            ),
            max_size=2,
        )
    )
    return Resolved("train", draw(st.none() | texts), values, where, tables)


def write(resolved: Resolved) -> str:
    return render_saved(resolved, version="0", cwd=Path("/nowhere"))


@given(resolved=resolveds())
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow], deadline=None)
def test_whatever_is_set_comes_back(resolved: Resolved) -> None:
    saved = parse_saved(parse_toml(write(resolved), "config.toml"))
    assert saved.architecture == resolved.architecture
    assert saved.values == {name: resolved.values[name] for name in KEPT}
    assert saved.data_tables == resolved.data_tables
    expected = {name: origin for name, origin in resolved.origins.items() if origin.layer != "default"}
    assert saved.origins == expected
    assert saved.resolved().values == resolved.values
    assert write(saved.resolved()) == write(resolved)


@given(resolved=resolveds())
@settings(max_examples=25, suppress_health_check=list(HealthCheck), deadline=None)
def test_read_as_config_it_hides_every_other_file(resolved: Resolved, tmp_path: Path) -> None:
    (tmp_path / "medcli.toml").write_text('image_size = 7\nlimit = 3\ndata = "other"\nepochs = 99\nweights = "x"\n')
    (tmp_path / "config.toml").write_text(write(resolved), encoding="utf-8", newline="")
    try:
        again = resolve("train", {"config": "config.toml"}, environ=NOBODY, cwd=tmp_path)
    except (UsageProblem, Problems) as refused:
        several: tuple[MedcliError, ...] = refused.problems if isinstance(refused, Problems) else (refused,)
        # Random values contradict each other; that is all that may be wrong.
        assert {problem.code for problem in several} == {"contradiction"}
        return
    assert {name: again.values[name] for name in KEPT} == {name: resolved.values[name] for name in KEPT}
    assert again.architecture == resolved.architecture


def test_what_acts_only_together_with_others_survives_the_round_trip(tmp_path: Path) -> None:
    (tmp_path / "medcli.toml").write_text("focal_gamma = 3.0\nloss = 'focal'\n")
    first = resolve("train", {"loss": "ce"}, environ=NOBODY, cwd=tmp_path)
    (tmp_path / "saved.toml").write_text(render_saved(first, version="0", cwd=tmp_path))
    again = resolve("train", {"config": "saved.toml"}, environ=NOBODY, cwd=tmp_path)
    assert again.values | {"config": None} == dict(first.values)


def test_a_run_directory_may_be_named_as_config(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    first = resolve("train", {"epochs": 3}, architecture="resnet18", environ=NOBODY, cwd=tmp_path)
    (run / "config.toml").write_text(render_saved(first, version="0", cwd=tmp_path))
    again = resolve("train", {"config": "run"}, environ=NOBODY, cwd=tmp_path)
    assert (again.values["epochs"], again.architecture) == (3, "resnet18")
    assert again.origin("epochs").where.startswith("run/config.toml:")


def test_paths_that_exist_become_absolute(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "t.csv").touch()
    (tmp_path / "x=y.csv").touch()
    given_ = {
        "data": ("t.csv", "a=t.csv", "x=y.csv", "synthetic/chest", "absent.npz"),
        "image_dir": ("images", "a=images"),
        "weights": "in1k",
    }
    text = render_saved(resolve("train", given_, environ=NOBODY, cwd=tmp_path), version="0", cwd=tmp_path)
    values = parse_saved(parse_toml(text, "c")).values
    here = tmp_path.resolve()
    assert values["data"] == (f"{here}/t.csv", f"a={here}/t.csv", f"{here}/x=y.csv", "synthetic/chest", "absent.npz")
    assert values["image_dir"] == (f"{here}/images", f"a={here}/images")
    assert values["weights"] == "in1k"


def test_the_file_tells_a_person_where_values_come_from(tmp_path: Path) -> None:
    resolved = resolve("train", {"epochs": 3, "class_names": ("a", "b")}, environ=NOBODY, cwd=tmp_path)
    lines = write(resolved).splitlines()
    assert "epochs = 3  # `--epochs`" in lines
    assert 'class_names = ["a", "b"]  # `--class-names`' in lines
    assert "lr = 0.001  # default" in lines
    assert 'epochs = ["flag", "--epochs"]' in lines
    assert not any(line.startswith(("resume", "json", "no_color", "config =")) for line in lines)


def test_a_name_that_is_no_text_is_refused_before_it_reaches_a_file() -> None:
    with pytest.raises(UsageProblem, match="not valid text") as caught:
        resolve("train", {"data": (os.fsdecode(b"caf\xe9.csv"),)}, environ=NOBODY)
    assert caught.value.message == "`caf\\udce9.csv` for `data` is not valid text"


def test_a_place_that_is_no_text_is_escaped() -> None:
    resolved = resolve("train", {"epochs": 3}, environ=NOBODY)
    odd = replace(resolved, origins={"epochs": Origin("config file", os.fsdecode(b"caf\xe9.toml:1"))})
    saved = parse_saved(parse_toml(write(odd), "c"))
    assert saved.origins["epochs"].where == "caf\\udce9.toml:1"


@pytest.mark.parametrize(
    ("text", "message", "where"),
    [
        ("", "does not say which command", "c"),
        ('command = "tran"\n', "does not say which command", "c:1"),
        ('command = "train"\n[train]\nepochs = 0\n', "`epochs` must be", "c:3"),
        ('command = "train"\n[train]\nepoch = 1\n', "unknown setting", "c:3"),
        ('command = "train"\n[train]\n[origins]\nlr = 3\n', "origin of `lr`", "c:4"),
        ('command = "train"\n[train]\n[origins]\nlr = ["nowhere", "x"]\n', "origin of `lr`", "c:4"),
    ],
)
def test_a_damaged_file_is_refused_with_its_line(text: str, message: str, where: str) -> None:
    with pytest.raises(UsageProblem, match=message) as caught:
        parse_saved(parse_toml(text, "c"))
    assert caught.value.where == where
