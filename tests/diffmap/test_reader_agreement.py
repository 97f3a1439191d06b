"""Readers' ellipses and their agreement, counted by hand."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from medcli.diffmap.readers import PUBLISHED, Ellipse, Finding, agreement, read_readings
from medcli.errors import UsageProblem


def spot(row: int, column: int, sign: int = 1) -> Finding:
    mask = np.zeros((32, 32), dtype=bool)
    mask[row - 1 : row + 2, column - 1 : column + 2] = True
    return Finding(sign, mask, (row, column))


def test_an_ellipse_covers_what_its_equation_says() -> None:
    mask = Ellipse(16, 16, 8, 4, 0, 1).mask(32, (32, 32))
    assert mask.sum() == pytest.approx(np.pi * 32, rel=0.05)
    rows, columns = np.nonzero(mask)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (12, 19, 8, 23)
    assert np.array_equal(Ellipse(16, 16, 8, 4, 90, 1).mask(32, (32, 32)), mask.T)
    # clockwise as seen: the right end goes down
    assert Ellipse(16, 16, 12, 2, 30, 1).mask(32, (32, 32))[20, 24]
    # a file of 64 x 32 lies in the middle of the square, half as large, 8 columns from its left edge
    small = Ellipse(16, 32, 8, 8, 0, 1).mask(32, (64, 32))
    assert np.array_equal(small, Ellipse(16, 16, 4, 4, 0, 1).mask(32, (32, 32)))
    assert Ellipse(5.5, 7.5, 0.01, 0.01, 0, 1).mask(32, (32, 32)).sum() == 1


def test_agreement_is_as_by_hand() -> None:
    one, two, three = spot(5, 5), spot(15, 15), spot(25, 25)
    moved, opposite = spot(6, 6), spot(15, 15, -1)
    readings = {
        "a": {"r1": [one, two], "r2": [moved], "r3": [one, opposite]},
        "b": {"r1": [], "r2": [], "r3": [three]},
    }
    model = {"a": [moved, three], "b": [three]}
    found = agreement(readings, model)
    # a: r1-r2 1 of 2+1, r1-r3 1 of 2+2, r2-r3 1 of 1+2; b: 0 of 0, 0 of 1, 0 of 1
    assert found.per_finding == pytest.approx(2 * 3 / (3 + 4 + 3 + 0 + 1 + 1))
    assert found.per_pair == pytest.approx((2 / 3 + 2 / 4 + 2 / 3 + 1 + 0 + 0) / 6)
    # with the model: a 1 of 4, 1 of 3, 1 of 4; b 0 of 1, 0 of 1, 1 of 2
    assert found.model_per_finding == pytest.approx(2 * 4 / (4 + 3 + 4 + 1 + 1 + 2))
    assert found.model_per_pair == pytest.approx((2 / 4 + 2 / 3 + 2 / 4 + 0 + 0 + 1) / 6)
    # positive: `one` of three readers (hit), `two` of one (missed), `three` of one (hit)
    assert found.consensus["positive"] == {1: (pytest.approx(2 / 3), 3), 2: (1.0, 1), 3: (1.0, 1)}
    assert found.consensus["negative"][1] == (0.0, 1)
    assert np.isnan(found.consensus["negative"][2][0])
    # r1 left out: one (2 others) hit; three missed. r2: one (2) hit, two and three missed. r3: one (2) hit, two missed
    assert found.left_out["positive"] == {1: (pytest.approx(3 / 7), 7), 2: (1.0, 3)}
    assert found.left_out["negative"][1] == (0.0, 2)
    assert (found.readers, found.pairs) == (3, 2)
    document = found.to_dict()
    assert document["published"]["pai_per_finding"] == {"value": 0.55, "low": 0.46, "high": 0.64}
    assert document["consensus_sensitivity"]["negative"]["2"] == {"value": None, "findings": 0}
    assert PUBLISHED["one_reader_against_the_others"]["negative"]["3"] == 0.82


def test_each_finding_is_matched_once() -> None:
    wide = Finding(1, np.ones((32, 32), dtype=bool), (16, 16))
    found = agreement({"a": {"r1": [wide], "r2": [spot(5, 5), spot(20, 20)]}}, {})
    assert np.isnan(found.per_finding)
    found = agreement({"a": {"r1": [wide], "r2": [spot(5, 5), spot(20, 20)]}}, {"a": []})
    assert found.per_finding == pytest.approx(2 / 3)


def write(path: Path, document: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document))


def test_readings_lie_in_folders_of_pairs(tmp_path: Path) -> None:
    mark = {"cx": 3, "cy": 4, "rx": 2, "ry": 1, "angle": 10, "label": "Appearance"}
    write(tmp_path / "p1/pair_0/anna.json", [mark, {**mark, "label": "Persistence"}])
    write(tmp_path / "p1/pair_0/ben.json", {"ellipses": [{**mark, "label": -2}]})
    write(tmp_path / "all.json", {"pair": "p2/pair_0", "reader": "anna", "ellipses": []})
    found = {(one.pair, one.reader): one.ellipses for one in read_readings(str(tmp_path))}
    assert found[("p1/pair_0", "anna")] == (Ellipse(3, 4, 2, 1, 10, 1),)
    assert found[("p1/pair_0", "ben")][0].sign == -1
    assert found[("p2/pair_0", "anna")] == ()


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"marks": []}, "no list `ellipses`"),
        ([{"cx": 3, "cy": 4, "rx": 2}], "no number `ry`"),
        ([{"cx": 3, "cy": 4, "rx": 0, "ry": 1, "label": 1}], "not above 0"),
        ([{"cx": 3, "cy": 4, "rx": 2, "ry": 1, "label": "odd"}], "label `odd`"),
        ([7], "is no object"),
    ],
)
def test_what_is_no_reading_is_named(tmp_path: Path, document: object, said: str) -> None:
    write(tmp_path / "p1/r.json", document)
    with pytest.raises(UsageProblem, match=said):
        read_readings(str(tmp_path))


def test_no_readings_and_two_of_one_reader_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageProblem, match="no folder"):
        read_readings(str(tmp_path / "absent"))
    with pytest.raises(UsageProblem, match="no JSON file"):
        read_readings(str(tmp_path))
    write(tmp_path / "a.json", {"pair": "p", "reader": "r", "ellipses": []})
    write(tmp_path / "p/r.json", [])
    with pytest.raises(UsageProblem, match="twice"):
        read_readings(str(tmp_path))
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(UsageProblem, match="no JSON"):
        read_readings(str(tmp_path))
