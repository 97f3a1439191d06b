"""What fifty installed plugins cost `models list`, which reads their names and cards and imports none of them.

Two starts of the same program are timed in turn, one of them with the plugins on its path, so that whatever else the
machine does falls on both; the median of the ratios of neighbouring runs is what counts.

    python bench/plugins.py [--plugins 50] [--runs 15] [--limit 1.30]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from medcli.scaffold.names import plugin_name
from medcli.scaffold.package import render
from medcli.testing.plugins import FakePlugin

COMMANDS = {"models list": ["models", "list", "--json"], "plugins list": ["plugins", "list", "--json"]}


def install(root: Path, count: int) -> None:
    """Plugins with the card that `plugins new` writes, each broken in a way that shows if anything imports it."""
    plugins = FakePlugin(root)
    for number in range(count):
        name = plugin_name(f"bench-{number}")
        card = render(name, "torch")[f"{name.package}/medcli-card.toml"]
        plugins(name.offered, distribution=name.distribution, broken="init", card=card)


def seconds(arguments: list[str], path: str) -> tuple[float, int]:
    """Wall-clock time of one start, and the names of plugins it told. Raises `RuntimeError` when the program fails."""
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, (path, os.environ.get("PYTHONPATH"))))}
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "medcli", *arguments], env=variables, capture_output=True, text=True, check=False
    )
    took = time.perf_counter() - began
    if done.returncode != 0:
        raise RuntimeError(f"{arguments} failed: {done.stderr}")
    rows = next(iter(json.loads(done.stdout)["result"].values()))
    return took, sum(row["name"].startswith("bench-") for row in rows)


def main() -> int:
    """Measure, print one line per command, and return 1 when a ratio is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--plugins", type=int, default=50)
    parser.add_argument("--runs", type=int, default=15)
    parser.add_argument("--limit", type=float, default=1.3)
    chosen = parser.parse_args()
    worst = 0.0
    with tempfile.TemporaryDirectory() as folder:
        install(Path(folder), chosen.plugins)
        for name, arguments in COMMANDS.items():
            pairs = []
            for turn in range(chosen.runs + 1):
                (full, told), (empty, none) = seconds(arguments, folder), seconds(arguments, "")
                if (told, none) != (chosen.plugins, 0):
                    raise RuntimeError(f"`{name}` told of {told} plugins, and of {none} without them")
                if turn:  # the first start of each writes compiled files
                    pairs.append((full, empty))
            ratio = statistics.median(with_them / without for with_them, without in pairs)
            worst = max(worst, ratio)
            full, empty = (statistics.median(column) for column in zip(*pairs, strict=True))
            print(f"{name:14}  with {chosen.plugins} plugins {full:.3f} s  without {empty:.3f} s  ratio {ratio:.2f}")
    print(f"limit {chosen.limit:.2f}: {'kept' if worst <= chosen.limit else 'broken'}")
    return int(worst > chosen.limit)


if __name__ == "__main__":
    sys.exit(main())
