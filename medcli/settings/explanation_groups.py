"""Settings of `explain` and `features`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from medcli.settings.option import THIS, Option

__all__ = ["ExplainSettings", "FeatureSettings"]


@dataclass(frozen=True, kw_only=True)
class ExplainSettings:
    """What is explained, and where in the network."""

    layer: Annotated[
        str | None,
        Option(
            "module whose map is used (Grad-CAM family), or number of a block (attention), -1 for the last",
            THIS,
            "NAME|N",
        ),
    ] = None
    target: Annotated[
        tuple[str, ...],
        Option(
            "class or label to ask about, once or several times; `OUTPUT` or `OUTPUT/CLASS` of several outputs "
            "(default: what the model answers)",
            THIS,
            "CLASS,…",
        ),
    ] = ()
    sanity: Annotated[
        bool,
        Option("destroy the weights from the answer down, and see whether the explanation changes with them", THIS),
    ] = False
    save: Annotated[
        int | None,
        Option(
            "also keep N right answers and the N worst errors of the run's own test data in the run, for its report",
            THIS,
            "N",
            minimum=1,
            maximum=500,
            flag_only=True,
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class FeatureSettings:
    """What is made of features besides a file of them."""

    plot: Annotated[
        Literal["tsne", "pca"] | None, Option("draw the features in two dimensions, coloured by label", THIS)
    ] = None
    neighbours: Annotated[
        str | None,
        Option("show the images that look most like this one to the network", THIS, "IMAGE", completes="path"),
    ] = None
