"""Cases that a table lists to be left out: what `data check --fix-report` writes, so that one can act on it."""

from __future__ import annotations

from collections.abc import Collection

from medcli.data.tables import read_header, read_table
from medcli.errors import UsageProblem, listed

__all__ = ["FLAG", "cases_to_leave_out"]

FLAG = "--leave-out"


def cases_to_leave_out(path: str, name: str, ids: Collection[str], sets: Collection[str]) -> frozenset[str]:
    """The identifiers of one data set that a table lists in its column `id`, where its column `data` names the set.

    Without a column `data`, a row is about every set; a header without rows leaves nothing out.

    Args:
        path: the table.
        name: of the data set.
        ids: of its cases.
        sets: names of all data sets that are read.

    Raises:
        UsageProblem: no such table or column, a data set that is not read, cases that this one does not have.
    """
    try:
        table = read_table(path)
    except UsageProblem as problem:
        if problem.code == "empty-table" and "id" in read_header(path):
            return frozenset()
        problem.where = problem.where or FLAG
        raise
    found = table.column("id", FLAG)
    if "data" in table.columns:
        of = table.column("data", FLAG)
        if others := sorted(set(of) - set(sets)):
            raise UsageProblem(
                f"`{path}` lists cases of {listed(others)}, and what is read is called {listed(sorted(sets))}",
                where=FLAG,
                hint=f"`--data {others[0]}=PATH` gives a data set that name",
                code="unknown-cases",
            )
        found = tuple(one for one, its in zip(found, of, strict=True) if its == name)
    wanted = frozenset(found)
    if unknown := sorted(wanted.difference(ids)):
        raise UsageProblem(
            f"`{path}` lists {len(unknown)} of {len(wanted)} cases that `{name}` does not have: {listed(unknown)}",
            where=FLAG,
            hint="`medcli data check --fix-report FILE` on these data writes such a table",
            code="unknown-cases",
        )
    return wanted
