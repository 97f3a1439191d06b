"""How a setting appears to a user: help, heading, limits. Only the standard library is imported."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Option"]


@dataclass(frozen=True)
class Option:
    """How one field appears to a user.

    Args:
        help: one sentence, lower-case start, no full stop.
        panel: the heading under which help lists it.
        metavar: the placeholder shown after the flag.
        short: a one-letter flag such as `-q`.
        minimum: smallest accepted value, inclusive unless `exclusive`.
        maximum: largest accepted value, inclusive.
        exclusive: whether `minimum` itself is refused.
        per_data_set: whether the flag also takes `NAME=VALUE`.
        from_recipe: whether a card's recipe may supply the value.
        flag_only: meaningful on the command line alone (never in a file or a variable).
        in_file: whether a configuration file may set it (a few are needed before any file is read).
        safe_on_resume: whether `--resume` may change it, because it cannot change the result.
        completes: what the shell offers: `path`, `dir`, `data`, `run`, `preset`, or nothing.
    """

    help: str
    panel: str = ""
    metavar: str = ""
    short: str = ""
    minimum: float | None = None
    maximum: float | None = None
    exclusive: bool = False
    per_data_set: bool = False
    from_recipe: bool = False
    flag_only: bool = False
    in_file: bool = True
    safe_on_resume: bool = False
    completes: str = ""


DATA, MODEL, STRATEGY, LEARN, REGULARISE, COMPUTE, RUN, OUTPUT, REPORT, CLINICAL, FOREIGN, THIS = (
    "Data",
    "Model",
    "Strategy",
    "Optimisation",
    "Loss and regularisation",
    "Compute",
    "Run",
    "Output",
    "Evaluation",
    "Thresholds, referral, subgroups",
    "Predictions of other tools",
    "This command",
)
