"""Made-up plugins: a distribution and a package written into a folder, whole or broken in one named way."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import invalidate_caches
from pathlib import Path
from typing import Literal

__all__ = ["Broken", "FakePlugin", "Installed"]

Broken = Literal["", "import", "exit", "missing", "attribute", "init", "api", "card", "syntax", "metadata", "reference"]
"""How a plugin is broken: importing its module raises (`import`) or ends the process (`exit`), its module does not
exist (`missing`) or lacks the function (`attribute`), its top-level package must never be imported (`init`), its card
asks for another `api`, names an unknown key (`card`) or is no TOML (`syntax`), its `metadata` cannot be parsed, its
`reference` is malformed."""

DIFFERENCE_GROUP = "medcli.difference_models"

_CARD = """api = {api}

[architectures.{name}]
summary = "made-up network {name}"
family = "fake"
params = 16
feature_dim = 8
input_size = 32
in_channels = 1
{extra}
"""
_DIFFERENCE_CARD = """api = {api}

[difference_models.{name}]
summary = "made-up difference model {name}"
input_size = 32
in_channels = 1
{extra}
"""
_MODULE = """
import torch
from torch import nn


class Net(nn.Module):
    feature_dim = 8

    def __init__(self, in_channels):
        super().__init__()
        self.linear = nn.Linear(in_channels, 8)

    def forward(self, images):
        return self.linear(images.mean(dim=(2, 3)))

    def layer_groups(self):
        from medcli.plugin import LayerGroup

        return (LayerGroup("linear", 0, ("linear.weight", "linear.bias"), ("linear",)),)


def build(*, in_channels, image_size, pretrained=False, weights=None, drop_path=0.0):
    return Net(in_channels)
"""
_DIFFERENCE = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, in_channels, signed):
        super().__init__()
        self.signed = signed
        self.encoder = nn.Conv2d(in_channels, 1, 1, bias=False)

    def forward(self, baseline, followup):
        change = torch.tanh(self.encoder(followup) - self.encoder(baseline))
        return change if self.signed else change.abs()

    def layer_groups(self):
        from medcli.plugin import LayerGroup

        return (LayerGroup("encoder", 0, ("encoder.weight",), ("encoder",)),)


def build(*, in_channels, image_size, map="signed", weights=None):
    return Net(in_channels, map == "signed")
"""


@dataclass(frozen=True)
class Installed:
    """What one call of `FakePlugin` wrote."""

    distribution: str
    version: str
    package: str
    metadata: Path
    source: Path
    card: Path


@dataclass
class FakePlugin:
    """Writes plugins below `root`, which a test has on `sys.path`.

    Args:
        root: the folder.
        packages: top-level packages written so far.
        distributions: distributions written so far.
        on_install: called with `distributions` after each one.
    """

    root: Path
    packages: list[str] = field(default_factory=list)
    distributions: list[str] = field(default_factory=list)
    on_install: Callable[[Sequence[str]], None] | None = None

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    def __call__(
        self,
        name: str = "fake-net",
        *,
        distribution: str = "medcli-fake",
        version: str = "1.0",
        broken: Broken = "",
        card: str | bool = True,
        module: str | None = None,
        entry_points: Mapping[str, str] | None = None,
        group: str = "medcli.architectures",
        extra: str = "",
    ) -> Installed:
        """Write one plugin.

        Args:
            name: the architecture it offers; the name of a built-in makes a conflict.
            distribution: name of the distribution; the package is the same with `_`.
            version: its version.
            broken: one way in which it fails, or "" for a whole plugin; see `Broken`.
            card: True for a small valid card, False for none, or the card's text.
            module: source of `package/net.py`; by default a one-layer torch network.
            entry_points: entry-point name to reference, instead of `name`.
            group: the entry-point group.
            extra: lines added to the architecture's table in the made-up card.
        """
        package = distribution.replace("-", "_").replace(".", "_")
        source = self.root / package
        source.mkdir(parents=True, exist_ok=True)
        init = (
            'raise RuntimeError("the package was imported although nobody asked for it")\n' if broken == "init" else ""
        )
        (source / "__init__.py").write_text(init, encoding="utf-8")
        if broken != "missing":
            (source / "net.py").write_text(_source(broken, module, group), encoding="utf-8")
        card_file = source / "medcli-card.toml"
        if card is not False:
            text = card if isinstance(card, str) else _card(name, broken, extra, group)
            card_file.write_text(text, encoding="utf-8")
        reference = f"{package}.net" if broken == "reference" else f"{package}.net:build"
        metadata = self.root / f"{package}-{version}.dist-info"
        _write_metadata(metadata, distribution, version, group, entry_points or {name: reference}, broken)
        self.packages.append(package)
        self.distributions.append(distribution)
        if self.on_install is not None:
            self.on_install(self.distributions)
        invalidate_caches()
        return Installed(distribution, version, package, metadata, source, card_file)

    def forget(self) -> None:
        """Remove what tests imported from these plugins, so that the next test starts clean."""
        for module in tuple(sys.modules):
            if module.partition(".")[0] in self.packages:
                del sys.modules[module]
        invalidate_caches()


def _source(broken: Broken, module: str | None, group: str) -> str:
    if broken == "import":
        return 'raise ValueError("this plugin was built against another torch")\n'
    if broken == "exit":
        return "import sys\n\nsys.exit(7)\n"
    if broken == "attribute":
        return "nothing = 0\n"
    if module is not None:
        return module
    return _DIFFERENCE if group == DIFFERENCE_GROUP else _MODULE


def _card(name: str, broken: Broken, extra: str, group: str) -> str:
    if broken == "syntax":
        return "api = 1\n\n[architectures.fake-net\n"
    if broken == "card":
        extra = f"{extra}\nfeature_dims = 8".strip()
    api = 99 if broken == "api" else 1
    if group == DIFFERENCE_GROUP:
        return _DIFFERENCE_CARD.format(api=api, name=name, extra=extra)
    return _CARD.format(api=api, name=name, extra=extra)


def _write_metadata(
    folder: Path, distribution: str, version: str, group: str, entry_points: Mapping[str, str], broken: Broken
) -> None:
    folder.mkdir(exist_ok=True)
    lines = [f"[{group}]", *(f"{name} = {reference}" for name, reference in entry_points.items()), ""]
    (folder / "entry_points.txt").write_text("\n".join(lines), encoding="utf-8")
    if broken == "metadata":
        (folder / "METADATA").write_bytes(b"\xff\xfe\x00 this is no metadata")
        return
    (folder / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n", encoding="utf-8"
    )
