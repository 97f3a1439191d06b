"""`python -m medcli` and the console script start here."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command line and leave with its exit status."""
    from medcli.cli.app import run

    sys.exit(run())


if __name__ == "__main__":
    main()
