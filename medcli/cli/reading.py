"""Showing long texts: how wide, and through which of the system's own readers."""

from __future__ import annotations

import shutil
import subprocess
import sys

__all__ = ["read_manual", "text_width"]

WIDEST = 100
READERS = (("man", "-l", "-"), ("mandoc", "-l"))


def text_width() -> int:
    """Columns to fill: the terminal's, up to what reads well; 80 where there is none."""
    return min(WIDEST, shutil.get_terminal_size((80, 24)).columns)


def read_manual(roff: str) -> bool:
    """Open a page in the system's reader; False where there is none, or nobody looks at a terminal."""
    if not sys.stdout.isatty():
        return False
    for reader in READERS:
        if shutil.which(reader[0]):
            return subprocess.run(reader, input=roff, encoding="utf-8", check=False).returncode == 0
    return False
