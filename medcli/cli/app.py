"""The command table. A command's module is imported when that command runs or its own help or completion is asked."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

from medcli import __version__
from medcli.cli.completion import SHELLS, script
from medcli.cli.errors import run_guarded
from medcli.cli.help import Description
from medcli.cli.output import write_line
from medcli.cli.tree import Command, Group, RootOption
from medcli.cli.typer_adapter import execute
from medcli.errors import EXIT_MEANINGS

if TYPE_CHECKING:
    from medcli.settings.commands import CommandSettings

__all__ = ["COMMAND_TABLE", "GROUPS", "Place", "program", "run"]


@dataclass(frozen=True)
class Place:
    """Where a command lives and what it is for.

    Args:
        reference: `module:function`.
        summary: one line, lower-case start, no full stop.
    """

    reference: str
    summary: str


COMMAND_TABLE: Mapping[str, Place] = {
    "train": Place("medcli.cli.commands.train:train", "train an architecture on your images"),
    "finetune": Place("medcli.cli.commands.finetune:finetune", "adapt a pretrained architecture or a run"),
    "lora": Place("medcli.cli.commands.lora:lora", "adapt a backbone with low-rank adapters of a few megabytes"),
    "ensemble": Place(
        "medcli.cli.commands.ensemble:ensemble", "train several members, or join runs or predictions, into one run"
    ),
    "search": Place("medcli.cli.commands.search:search", "look for good settings of a training, on validation images"),
    "evaluate": Place("medcli.cli.commands.evaluate:evaluate", "measure a run or stored predictions, with intervals"),
    "calibrate": Place(
        "medcli.cli.commands.calibrate:calibrate", "turn scores into probabilities, fitted on validation cases"
    ),
    "report": Place("medcli.cli.commands.report:report", "write a report of a run or of predictions, for people"),
    "predict": Place("medcli.cli.commands.predict:predict", "apply a run to image files"),
    "explain": Place("medcli.cli.commands.explain:explain", "show which parts of a picture spoke for an answer"),
    "features": Place("medcli.cli.commands.features:features", "write, draw and compare what a network sees in images"),
    "benchmark": Place(
        "medcli.cli.commands.benchmark:benchmark", "measure speed and memory of architectures, and train them briefly"
    ),
    "export": Place("medcli.cli.commands.export:export", "turn a run into a bundle that runs elsewhere"),
    "diffmap synth": Place("medcli.cli.commands.diffmap_synth:synth", "make pairs of radiographs with true maps"),
    "diffmap pretrain": Place(
        "medcli.cli.commands.diffmap_pretrain:pretrain", "teach an encoder to fill in hidden parts of radiographs"
    ),
    "diffmap train": Place("medcli.cli.commands.diffmap_train:train", "train a map of what changed, on pairs"),
    "diffmap evaluate": Place(
        "medcli.cli.commands.diffmap_evaluate:evaluate", "measure maps of what changed, beside subtraction"
    ),
    "diffmap predict": Place("medcli.cli.commands.diffmap_predict:predict", "show what changed between two images"),
    "models list": Place("medcli.cli.commands.models:list_models", "list the architectures that can be built"),
    "models show": Place("medcli.cli.commands.models:show_model", "show the card of an architecture, and its layers"),
    "models recommend": Place(
        "medcli.cli.commands.models_recommend:recommend_models", "recommend architectures, with the command to type"
    ),
    "models fetch": Place("medcli.cli.commands.models_fetch:fetch_weights", "download published weights"),
    "models verify": Place("medcli.cli.commands.models_verify:verify", "say what a weight file is and what it fits"),
    "plugins list": Place("medcli.cli.commands.plugins:list_plugins", "list installed plugins and their state"),
    "plugins doctor": Place("medcli.cli.commands.plugins:doctor", "import and build what plugins offer"),
    "plugins check": Place(
        "medcli.cli.commands.plugins_check:check", "check that a plugin keeps the promises medcli builds on"
    ),
    "plugins new": Place("medcli.cli.commands.plugins_new:new", "write a plugin package to start from"),
    "runs list": Place("medcli.cli.commands.runs:list_runs", "list runs with their state and best figure"),
    "runs show": Place("medcli.cli.commands.runs_show:show_run", "show one run"),
    "runs compare": Place("medcli.cli.commands.runs_compare:compare_runs", "compare runs by one figure"),
    "data check": Place(
        "medcli.cli.commands.data:check_data", "look for leakage, duplicates, unreadable files, bad labels"
    ),
    "data inspect": Place("medcli.cli.commands.data:inspect_file", "show step by step how one image file is decoded"),
    "data synth": Place("medcli.cli.commands.data_synth:synth", "write a synthetic data set"),
    "data cache": Place("medcli.cli.commands.data_cache:data_cache", "list or clear what is kept between runs"),
    "config show": Place("medcli.cli.commands.config:show_config", "show every setting and where its value comes from"),
    "config check": Place("medcli.cli.commands.config:check_config", "check configuration files"),
    "config init": Place("medcli.cli.commands.config:init_config", "write a commented configuration file"),
    "config schema": Place("medcli.cli.commands.config:show_schema", "print the JSON schema of configuration files"),
    "config presets": Place("medcli.cli.commands.config:list_presets", "list the named sets of settings"),
    "doctor": Place("medcli.cli.commands.doctor:doctor", "look at this machine and test it"),
    "completion show": Place("medcli.cli.commands.completion:show", "print the completion script of a shell"),
    "completion install": Place("medcli.cli.commands.completion:install", "put it where the shell finds it"),
    "help": Place("medcli.cli.commands.help:help_page", "explain a command, or a subject"),
    "man": Place("medcli.cli.commands.help:man", "show a manual page"),
}

GROUPS: Mapping[str, Description] = {
    "diffmap": Description(
        "maps of what changed between two radiographs of one patient",
        examples=("medcli diffmap train --data synthetic/chest-pairs --limit 60 --image-size 64 --epochs 5",),
    ),
    "models": Description(
        "architectures: list, show, recommend, fetch, verify",
        examples=("medcli models list --family resnet", "medcli models show resnet18"),
    ),
    "plugins": Description(
        "packages that bring architectures: list, doctor, check, new",
        examples=("medcli plugins list", "medcli plugins doctor"),
    ),
    "runs": Description("trained models: list, show, compare", examples=("medcli runs list",)),
    "data": Description(
        "images and labels: check, inspect, synth, cache",
        examples=("medcli data check --data breastmnist.npz", "medcli data inspect scan.dcm"),
    ),
    "config": Description(
        "settings: show, check, init, schema, presets", examples=("medcli config show train", "medcli config presets")
    ),
    "completion": Description(
        "TAB in bash, zsh, fish and PowerShell: show, install", examples=("medcli completion install bash",)
    ),
}

ABOUT = Description(
    "From a set of medical images to a model one can defend.",
    examples=(
        "medcli train resnet18 --data synthetic/chest --image-size 64 --epochs 5",
        "medcli train resnet50 --data breastmnist.npz",
        "medcli evaluate runs/NAME",
    ),
)
CLOSING = (
    "`medcli COMMAND --help` explains a command. `medcli help` lists guides, `medcli completion "
    "install SHELL` makes TAB work.",
    "Exit status: " + ", ".join(f"{int(code)} {meaning}" for code, meaning in EXIT_MEANINGS.items()) + ".",
)


def _say_version(value: str) -> None:
    write_line(sys.stdout, f"medcli {__version__}")


def _say_completion(shell: str) -> None:
    write_line(sys.stdout, script(shell).rstrip())


ROOT_OPTIONS = (
    RootOption(("--version",), "print the version", _say_version),
    RootOption(
        ("--show-completion",),
        f"print the completion script of a shell: {', '.join(SHELLS)}",
        _say_completion,
        "SHELL",
        SHELLS,
    ),
)


def program() -> Group:
    """The whole command line as a value; nothing of any command is imported."""
    members: dict[str, Command | Group] = {}
    grouped: dict[str, dict[str, Command | Group]] = {}
    for name, place in COMMAND_TABLE.items():
        command = Command(name, place.summary, _loader(place.reference), _settings(name))
        first, _, second = name.partition(" ")
        if not second:
            members[first] = command
            continue
        inner = grouped.setdefault(first, {})
        inner[second] = command
        members.setdefault(first, Group(first, GROUPS[first], inner))
    return Group("medcli", ABOUT, members, ROOT_OPTIONS, CLOSING)


def _loader(reference: str) -> Callable[[], Callable[..., Any]]:
    def load() -> Callable[..., Any]:
        module, _, function = reference.partition(":")
        loaded: Callable[..., Any] = getattr(import_module(module), function)
        return loaded

    return load


def _settings(name: str) -> Callable[[], CommandSettings]:
    def take() -> CommandSettings:
        from medcli.settings.commands import COMMANDS

        return COMMANDS[name]

    return take


def run(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """Run one command line and return its exit status; every failure has been said by then."""
    typed = sys.argv[1:] if arguments is None else list(arguments)
    variables = os.environ if environ is None else environ
    return run_guarded(lambda: execute(program(), typed, variables), typed, variables)
