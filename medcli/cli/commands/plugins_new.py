"""`plugins new`: a complete plugin package to start from."""

from __future__ import annotations

import shlex
from pathlib import Path

from medcli.cli.options import Flags, NewPlugin
from medcli.cli.output import Output
from medcli.registry.discovery import discover
from medcli.registry.layout import install_line
from medcli.scaffold.kinds import KINDS
from medcli.scaffold.names import check_free, plugin_name
from medcli.scaffold.package import render, write
from medcli.settings.groups import NewPluginSettings

__all__ = ["new"]


def new(name: NewPlugin, flags: Flags) -> None:
    """Write a complete plugin package to start from.

    Packaging, card, factory, tests and README for one architecture (`--kind torch`, `timm` or `transformers`) or one
    difference model. It works as it is: installed, it is listed, completed, trained and passes every check; then you
    replace the network. `mynet` and `medcli-mynet` mean the same: the distribution `medcli-mynet` offers `mynet`.

    Examples:
        medcli plugins new mynet
        medcli plugins new medcli-my-backbone --kind timm --out backbones/mine
    """
    output = Output(flags.output(), "plugins new")
    names = plugin_name(name)
    # What MEDCLI_PLUGINS leaves out today is installed all the same.
    check_free(names, discover({}))
    kind: str = flags.given.get("kind") or NewPluginSettings().kind
    folder = Path(flags.output().out or names.distribution)
    rendered = render(names, kind)
    write(folder, rendered)
    place = shlex.quote(str(folder))
    steps = [install_line((str(folder),), editable=True), f"medcli plugins check {place}"]
    if not KINDS[kind].is_difference:
        steps += [
            f"medcli models show {names.offered}",
            f"medcli train {names.offered} --data synthetic/chest --image-size 64 --limit 200 --epochs 2",
        ]
    output.answer(
        {
            "name": names.offered,
            "distribution": names.distribution,
            "package": names.package,
            "kind": kind,
            "folder": str(folder),
            "files": list(rendered),
            "next": steps,
        },
        "\n".join(
            [f"{names.distribution}, offering `{names.offered}`: {len(rendered)} files in {folder}", "next:"]
            + [f"    {step}" for step in steps]
        ),
        identifier=str(folder),
    )
