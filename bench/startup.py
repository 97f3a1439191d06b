"""How long `--help` and one completion take, beside a bare Typer application with the same commands and options.

The two are started in turn, so that whatever else the machine does falls on both; the median of the ratios of
neighbouring runs is what counts. Completions are asked as bash asks them.

    python bench/startup.py [--runs 15] [--limit 1.25]
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from medcli.cli.app import COMMAND_TABLE
from medcli.settings.commands import COMMANDS

KINDS = {int: "int", float: "float", str: "str", bool: "bool"}
CASES: Mapping[str, tuple[Sequence[str], str]] = {
    "--help": (["--help"], ""),
    "completion of a command": ([], "NAME\ntr"),
    "completion of an option": ([], "NAME\ntrain\n--epo"),
    "completion of an architecture": ([], "NAME\ntrain\nresnet1"),
}


def bare_application() -> str:
    """Source of a Typer application with medcli's commands and options, written as Typer's tutorial would."""
    lines = ["import typer", "from typing import List, Optional", "app = typer.Typer()"]
    groups = {name.split()[0] for name in COMMAND_TABLE if " " in name}
    lines += [
        f"{group} = typer.Typer(help='{group}')\napp.add_typer({group}, name='{group}')" for group in sorted(groups)
    ]
    for name, place in COMMAND_TABLE.items():
        first, _, second = name.partition(" ")
        parameters = ["argument: str = typer.Argument(None, help='what it works on')"]
        for field in COMMANDS[name].fields.values():
            kind = f"List[{KINDS[field.base]}]" if field.many else KINDS[field.base]
            parameters.append(
                f"{field.name}_: Optional[{kind}] = typer.Option("
                f"None, '{field.flag}', help={field.option.help!r}, rich_help_panel={field.option.panel!r})"
            )
        lines.append(f"@{first if second else 'app'}.command({second or first!r}, help={place.summary!r})")
        lines.append(f"def {name.replace(' ', '_')}({', '.join(parameters)}):\n    print('ran')")
    lines.append("if __name__ == '__main__':\n    app(prog_name='bare')")
    return "\n".join(lines) + "\n"


def seconds(command: Sequence[str], request: str, program: str) -> float:
    """Wall-clock time of one start. Raises `RuntimeError` when the program fails or answers nothing."""
    words = request.replace("NAME", program)
    variables = dict(os.environ)
    if request:
        variables |= {
            f"_{program.upper()}_COMPLETE": "complete_bash",
            "COMP_WORDS": words,
            "COMP_CWORD": str(words.count("\n")),
        }
    began = time.perf_counter()
    done = subprocess.run(command, env=variables, capture_output=True, text=True, check=False)
    took = time.perf_counter() - began
    # The bare application knows no architectures, so it has nothing to say about them.
    if done.returncode != 0 or not (done.stdout.strip() or "resnet" in words):
        raise RuntimeError(f"{command} failed: {done.stderr}")
    return took


def main() -> int:
    """Measure, print one line per case, and return 1 when a ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--limit", type=float, default=1.25)
    chosen = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        # A module, as medcli is one: both run from compiled files.
        (Path(folder) / "bare_application.py").write_text(bare_application(), encoding="utf-8")
        start = f"import sys; sys.path.insert(0, {folder!r}); import bare_application as it; it.app(prog_name='bare')"
        for case, (arguments, request) in CASES.items():
            ours = [sys.executable, "-m", "medcli", *arguments]
            bare = [sys.executable, "-c", start, *arguments]
            pairs = []
            for turn in range(chosen.runs + 1):
                pair = (seconds(ours, request, "medcli"), seconds(bare, request, "bare"))
                if turn:  # the first start of each writes compiled files
                    pairs.append(pair)
            ratio = statistics.median(mine / theirs for mine, theirs in pairs)
            worst = max(worst, ratio)
            mine, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{case:30}  medcli {mine:.3f} s  bare Typer {theirs:.3f} s  ratio {ratio:.2f}")
    print(f"limit {chosen.limit:.2f}: {'kept' if worst <= chosen.limit else 'broken'}")
    return int(worst > chosen.limit)


if __name__ == "__main__":
    sys.exit(main())
