"""From flags to a situation: what the user said, what the data says, and which of the two counts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from medcli.errors import UsageProblem, nearest
from medcli.recommend.candidates import Candidate
from medcli.recommend.rules import Rules
from medcli.recommend.situation import ASSUMED_GPU_GB, Situation
from medcli.settings.groups import DataSettings

__all__ = ["situation"]


def situation(given: Mapping[str, Any], offered: Sequence[Candidate], rules: Rules) -> Situation:
    """The situation that flags describe. A flag counts more than what the data says, and a note tells so.

    Args:
        given: flags by field name.
        offered: what is installed: kinds of pictures that only a card names count too.
        rules: the kinds of pictures that are known.

    Raises:
        UsageProblem: an unknown kind of picture, columns without data, or whatever is wrong with the data.
    """
    gpu = given.get("gpu_memory")
    now = Situation(
        goal=given.get("goal", "accuracy"), gpu_gb=ASSUMED_GPU_GB if gpu is None else gpu, gpu_assumed=gpu is None
    )
    said = {name: given[name] for name in ("images", "imbalance", "task") if given.get(name) is not None}
    if given.get("modality"):
        said["modality"] = _modality(given["modality"], offered, rules)
    fields = {name: value for name, value in given.items() if name in DataSettings.__dataclass_fields__}
    if not fields.get("data"):
        _refuse_columns(fields)
        return replace(now, **said)
    from medcli.recommend.survey import survey

    found = survey(DataSettings(**fields), rules, now)
    notes = [
        f"`--{name}` says {value}, the data {getattr(found, name)}: the flag counts"
        for name, value in said.items()
        if getattr(found, name) not in (None, value)
    ]
    return replace(found, **said, notes=(*found.notes, *notes))


def _modality(text: str, offered: Sequence[Candidate], rules: Rules) -> str:
    own = {kind for one in offered for kind in one.modalities}
    word = rules.modality(text) or text.lower()
    if word in rules.modalities or word in own:
        return word
    close = nearest(text.lower(), [*rules.words, *rules.modalities])
    kinds = ", ".join(f"`{name}`" for name in rules.modalities)
    meant = rules.modality(close[0]) if close else None
    raise UsageProblem(
        f"`{text}` is no kind of picture that anything is known about",
        where="--modality",
        hint=(f"did you mean `{meant}`? " if meant else "") + f"known are {kinds}",
        code="unknown-modality",
    )


def _refuse_columns(fields: Mapping[str, Any]) -> None:
    columns = [name for name in fields if name != "task"]
    if columns:
        flag = f"--{columns[0].replace('_', '-')}"
        raise UsageProblem(
            f"`{flag}` belongs to data, and none is named", where=flag, hint="add `--data PATH`", code="no-data"
        )
