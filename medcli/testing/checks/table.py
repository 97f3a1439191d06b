"""Which checks there are and what each is for, by name alone: their modules are imported when they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module

from medcli.testing.checks.subject import Package, Plan, Subject
from medcli.testing.checks.verdict import Verdict, judge

__all__ = ["ARCHITECTURE", "DIFFERENCE", "PACKAGE", "Case", "Check", "cases_of"]

_HERE = "medcli.testing.checks"


@dataclass(frozen=True)
class Check:
    """One promise.

    Args:
        name: as `expected_failures` and the listing name it.
        about: what is demanded, in one line.
        place: `module:function` below this package.
    """

    name: str
    about: str
    place: str

    def function(self) -> Callable[..., str | None]:
        """The function, imported now."""
        module, _, name = self.place.partition(":")
        loaded: Callable[..., str | None] = getattr(import_module(f"{_HERE}.{module}"), name)
        return loaded


@dataclass(frozen=True)
class Case:
    """One check of one thing.

    Args:
        check: what is demanded.
        of: the package, or one of its entries.
    """

    check: Check
    of: Package | Subject

    @property
    def owner(self) -> str:
        """The entry's name, or for the package's own checks the target as asked."""
        return self.of.entry.name if isinstance(self.of, Subject) else self.of.target

    @property
    def name(self) -> str:
        """`owner:check`, unique within one target."""
        kind = "difference model " if isinstance(self.of, Subject) and self.of.is_difference else ""
        return f"{kind}{self.owner}:{self.check.name}"

    def verdict(self) -> Verdict:
        """Run it."""
        return judge(self.check.function(), self.of)


PACKAGE = (
    Check("discoverable", "its names are found in package metadata, unambiguous and well formed", "packaging:names"),
    Check("card", "the card is valid and lists exactly the names that the entry points offer", "packaging:card"),
    Check("listing-is-light", "listing it imports nothing of it, and no torch", "packaging:listing"),
)

_COMMON_START = (
    Check("import-alone", "its factory can be imported in a fresh process, silently", "packaging:import_alone"),
    Check("outline", "it can be built without memory for weights, as `models show --layers` does", "building:outline"),
    Check("facts", "what the card says is what the network is", "building:facts"),
    Check("channels", "it takes images with 1, 3 and 4 channels", "building:channels"),
    Check("sizes", "it takes the sizes that the card declares", "building:sizes"),
    Check("options", "it takes every option of the card, with its default and each choice", "building:options"),
)
_COMMON = (
    Check("output", "the output has the promised shape and type", "behaviour:output"),
    Check("finite", "the output is finite", "behaviour:finite"),
    Check("batch-of-one", "one image alone gives what it gives within a batch", "behaviour:batch_of_one"),
    Check("deterministic", "in eval mode the same images give the same output and change nothing", "behaviour:repeats"),
    Check("gradients", "every trainable parameter gets a gradient", "learning:gradients"),
    Check("seed", "the seed alone decides the initial weights", "learning:seed"),
    Check("groups", "layer groups hold every parameter exactly once", "groups:complete"),
    Check("group-order", "layer groups are in the order of use, stages never fall", "groups:order"),
    Check("state-dict", "its state dict restores it", "storage:state_dict"),
    Check("safetensors", "a safetensors file restores it", "storage:safetensors"),
)
_COMMON_END = (
    Check("torch-export", "`torch.export` captures it and gives the same output", "exporting:torch_export"),
    Check("onnx", "ONNX Runtime gives the same output", "exporting:onnx"),
    Check("limits", "import, build and one image stay within limits of time and memory", "limits:limits"),
)
ARCHITECTURE = (
    *_COMMON_START,
    Check("drop-path", "it takes or refuses a drop path, as the card says", "building:drop_path"),
    *_COMMON,
    Check("attention", "it gives attention maps where the card says so", "behaviour:attention"),
    Check("lora", "the card's LoRA targets exist and learn", "adapters:lora"),
    *_COMMON_END,
)
DIFFERENCE = (
    *_COMMON_START,
    *_COMMON,
    Check("magnitude", '`map="magnitude"` gives values in [0, 1]', "differences:magnitude"),
    Check("encoder", "`.encoder` is a part of the network", "differences:encoder"),
    Check("extras", "what it offers for pretraining, a judge and memory works", "differences:extras"),
    *_COMMON_END,
)


def cases_of(package: Package, plan: Plan | None = None) -> tuple[Case, ...]:
    """All checks of a package and its entries. A namespace stands for many networks: only its names are checked."""
    cases = [Case(check, package) for check in PACKAGE]
    for entry in package.entries:
        if not entry.is_namespace:
            subject = Subject(entry, plan or Plan())
            cases += [Case(check, subject) for check in _checks_of(subject)]
    return tuple(cases)


def _checks_of(subject: Subject) -> tuple[Check, ...]:
    return DIFFERENCE if subject.is_difference else ARCHITECTURE
