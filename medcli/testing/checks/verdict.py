"""How a check ends: passed, failed with a sentence, or skipped with a reason. There is no fourth way."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NoReturn

from medcli.errors import MedcliError

__all__ = ["CheckFailed", "CheckSkipped", "Verdict", "fail", "judge", "skip"]


class CheckFailed(Exception):
    """The plugin does not keep a promise; the message says what was expected and what came."""


class CheckSkipped(Exception):
    """The check does not apply, or cannot be made here; the message says why."""


@dataclass(frozen=True)
class Verdict:
    """How one check ended.

    Args:
        outcome: `passed`, `failed` or `skipped`.
        reason: why it failed or was skipped, or what else is worth knowing.
    """

    outcome: Literal["passed", "failed", "skipped"]
    reason: str = ""


def fail(message: str) -> NoReturn:
    """End the check as failed."""
    raise CheckFailed(message)


def skip(reason: str) -> NoReturn:
    """End the check as skipped."""
    raise CheckSkipped(reason)


def judge(check: Callable[..., str | None], *arguments: Any) -> Verdict:
    """Run a check; whatever the plugin raises, `SystemExit` included, is a failure of the plugin.

    Warnings are silenced: the libraries underneath warn about their own future, which is no promise of a plugin.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return Verdict("passed", check(*arguments) or "")
    except CheckSkipped as reason:
        return Verdict("skipped", str(reason))
    except CheckFailed as message:
        return Verdict("failed", str(message))
    except MedcliError as error:
        return Verdict("failed", str(error))
    except (Exception, SystemExit) as error:
        return Verdict("failed", f"{type(error).__name__}: {error}{_place(error)}")


def _place(error: BaseException) -> str:
    """Where it was raised: the last line outside the checks themselves."""
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "medcli/testing/" not in frame.filename]
    return f"\nat {frames[-1].filename}:{frames[-1].lineno}, in {frames[-1].name}" if frames else ""
