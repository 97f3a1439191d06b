"""Which columns of a table hold scores, and of which classes: by our own names, or by the patterns the user gives."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from medcli.data.tables import Table
from medcli.errors import UsageProblem, listed

__all__ = ["find_scores"]


def find_scores(table: Table, probabilities: str, logits: str) -> tuple[list[str], list[str], bool]:
    """(class names, columns, whether they hold logits).

    Args:
        table: of predictions.
        probabilities: pattern of the probability columns, such as `prob_*`, or several as `A,B`; empty for our own.
        logits: likewise of the logit columns.

    Raises:
        UsageProblem: no such columns, both kinds, or a class named twice.
    """
    if logits and probabilities:
        raise UsageProblem("`--prob-columns` and `--logit-columns` exclude each other", code="two-kinds-of-scores")
    pattern, flag, are_logits = logits, "--logit-columns", True
    if probabilities:
        pattern, flag, are_logits = probabilities, "--prob-columns", False
    if not pattern:
        ours = [one for one in ("logit_*", "prob_*") if any(fnmatchcase(name, one) for name in table.columns)]
        if len(ours) != 1:
            found = "both `logit_*` and `prob_*` columns" if ours else "no column `prob_*` or `logit_*`"
            raise UsageProblem(
                f"`{table.path}` has {found}; its columns are {table.listed()}",
                hint="`--prob-columns 'PATTERN'` or `--logit-columns 'PATTERN'` says which hold the scores",
                code="no-scores",
            )
        pattern, are_logits = ours[0], ours[0] == "logit_*"
    names, found_columns = _matching(table, pattern, flag)
    return names, found_columns, are_logits


def _matching(table: Table, wanted: str, flag: str) -> tuple[list[str], list[str]]:
    """(class names, columns): those of a pattern, or of several between commas, in the order of the patterns."""
    whole = any(fnmatchcase(name, wanted) for name in table.columns)
    names: list[str] = []
    columns: list[str] = []
    for pattern in [wanted] if whole else [part.strip() for part in wanted.split(",")]:
        found = [name for name in table.columns if fnmatchcase(name, pattern) and name not in columns]
        if not found:
            raise UsageProblem(
                f"no column of `{table.path}` matches `{pattern}`; its columns are {table.listed()}",
                where=flag,
                hint=f"`{flag} 'PATTERN'` with `*` for what differs, or `{flag} 'A,B'` for columns one by one",
                code="no-scores",
            )
        before, star, after = pattern.partition("*")
        plain = bool(star) and not re.search(r"[*?\[]", before + after)
        names += [name[len(before) : len(name) - len(after)] if plain else name for name in found]
        columns += found
    if len(set(names)) < len(names):
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        raise UsageProblem(
            f"`{wanted}` matches {listed(columns, 8)}, which would name a class twice: {listed(twice)}",
            where=flag,
            code="no-scores",
        )
    return names, columns
