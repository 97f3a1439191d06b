"""What a new plugin may be built on, and what the templates say differently for each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from medcli.registry.discovery import ARCHITECTURES, DIFFERENCE_MODELS

__all__ = ["KINDS", "Kind"]

_FEATURES = """

def test_features_do_not_depend_on_the_rest_of_the_batch():
    network = build(in_channels=3, image_size={small}).eval()
    images = torch.rand(3, 3, {small}, {small})
    assert torch.allclose(network(images)[:1], network(images[:1]), atol=1e-5)"""
_ODD = """

def test_equal_images_have_not_changed_and_exchanging_them_changes_the_sign():
    network = build(in_channels=1, image_size={small}).eval()
    before, after = torch.rand(2, 1, 1, {small}, {small})
    assert network(before, before).abs().max() == 0
    assert torch.allclose(network(before, after), -network(after, before))"""


@dataclass(frozen=True)
class Kind:
    """One kind of plugin.

    Args:
        title: what its card and README call it.
        group: entry-point group.
        requirements: of the distribution, beside medcli.
        first_step: what its author does first.
        small: side in pixels at which its tests run.
        inner: the part of the network whose tensors a weight file holds.
        own_modules: whether the package has a `network.py`.
    """

    title: str
    group: str = ARCHITECTURES
    requirements: tuple[str, ...] = ("torch>=2.11,!=2.13.*",)
    first_step: str = ""
    small: int = 32
    inner: str = "network"
    own_modules: bool = False

    @property
    def is_difference(self) -> bool:
        """Whether it compares two images."""
        return self.group == DIFFERENCE_MODELS

    def words(self, name: str, package: str) -> dict[str, str]:
        """What the templates put in, beside the names."""
        two = self.is_difference
        channels = 1 if two else 3
        size = f"{channels}, {self.small}, {self.small}"
        images = f"before, after = torch.rand(2, 2, {size})" if two else f"images = torch.rand(2, {size})"
        given = "before, after" if two else "images"
        row = f"| `{package}/network.py` | the network |\n"
        return {
            "title": self.title,
            "group": self.group,
            "thing": "difference model" if two else "architecture",
            "requirements": ", ".join(f'"{one}"' for one in self.requirements),
            "first_step": self.first_step.format(package=package),
            "usage": "medcli plugins list" if two else f"medcli train {name} --data synthetic/chest --image-size 64",
            "network_row": row if self.own_modules else "",
            "small": str(self.small),
            "channels": str(channels),
            "inner": self.inner,
            "images": images,
            "call_again": f"again({given})",
            "call_trained": f"trained({given})",
            "own_test": (_ODD if two else _FEATURES).format(small=self.small),
        }


_OWN = "Replace the network in `{package}/network.py`; the factory in `{package}/__init__.py` lists its options."

KINDS: Mapping[str, Kind] = {
    "torch": Kind("a small network of three convolutions", first_step=_OWN, own_modules=True),
    "timm": Kind(
        "timm's ResNet-10-T",
        requirements=("torch>=2.11,!=2.13.*", "timm>=1.0.20"),
        first_step="Write the name of your timm network into `{package}/__init__.py`, or a function that returns one.",
        inner="network.net",
    ),
    "transformers": Kind(
        "a small DINOv2",
        requirements=("torch>=2.11,!=2.13.*", "transformers>=5.0"),
        first_step="Write the configuration of your network into `{package}/__init__.py`, or the folder it lies in.",
        small=28,
        inner="network.net",
    ),
    "difference": Kind(
        "a map of what changed between two images, by one encoder for both",
        group=DIFFERENCE_MODELS,
        first_step=_OWN,
        own_modules=True,
    ),
}
