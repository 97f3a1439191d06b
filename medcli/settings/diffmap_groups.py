"""Settings of maps of what changed: which network makes them, how a pair is prepared, what is learnt from pairs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from medcli.settings.option import DATA, LEARN, MODEL, REGULARISE, REPORT, THIS, Option

__all__ = [
    "DifferenceLossSettings",
    "DifferenceSettings",
    "FoundMapSettings",
    "MaskSettings",
    "PairSettings",
    "PairSynthSettings",
    "PairTableSettings",
]


@dataclass(frozen=True, kw_only=True)
class PairSettings:
    """How the two images of a pair come to lie over each other."""

    register: Annotated[
        Literal["none", "affine", "bspline"],
        Option("how the earlier image is laid over the later one before anything else", THIS),
    ] = "affine"


@dataclass(frozen=True, kw_only=True)
class PairTableSettings:
    """Which column of a table of pairs holds what, beside those that every table has (folder, patient, split)."""

    baseline_column: Annotated[str, Option("column of a table of pairs with the earlier image", DATA, "COLUMN")] = (
        "baseline"
    )
    followup_column: Annotated[str, Option("column with the later image", DATA, "COLUMN")] = "followup"
    map_column: Annotated[
        str | None, Option("column with the true map (default: `map` where there is one)", DATA, "COLUMN")
    ] = None
    mask_column: Annotated[
        str | None,
        Option("column with the mask of what counts (default: `mask` where there is one)", DATA, "COLUMN"),
    ] = None
    pair_column: Annotated[
        str | None, Option("column with the pair's name (default: `pair`, else the row's number)", DATA, "COLUMN")
    ] = None
    view_column: Annotated[
        str | None, Option("column with the view, such as PA (default: `view` where there is one)", DATA, "COLUMN")
    ] = None
    date_columns: Annotated[
        tuple[str, ...],
        Option(
            "columns with the dates of both images, or numbers that rise with time: the order is checked", DATA, "A,B"
        ),
    ] = ()


@dataclass(frozen=True, kw_only=True)
class DifferenceSettings:
    """Which network makes the map, and of what kind the map is."""

    model: Annotated[str, Option("difference model (`medcli models list --difference` shows them)", MODEL, "NAME")] = (
        "siamese-unet"
    )
    map: Annotated[
        Literal["signed", "magnitude"],
        Option("`signed`: positive where the later image is denser; `magnitude`: how much changed alone", MODEL),
    ] = "signed"
    encoder_from: Annotated[
        str | None,
        Option(
            "take the encoder of this run: a `diffmap pretrain`, another difference model, or a classifier with the "
            "same encoder",
            MODEL,
            "RUN",
            completes="run",
        ),
    ] = None
    freeze_encoder: Annotated[bool, Option("keep the encoder as it is and train the rest", REGULARISE)] = False
    order_swap: Annotated[
        bool,
        Option(
            "let half of the pairs change places while training, the map its sign; for registered pairs", REGULARISE
        ),
    ] = True


@dataclass(frozen=True, kw_only=True)
class DifferenceLossSettings:
    """What a map or a filled-in picture is held to, and how much each part of it counts; 0 leaves a part out."""

    l1_weight: Annotated[float, Option("weight of the absolute error", REGULARISE, minimum=0)] = 1.0
    l2_weight: Annotated[float, Option("weight of the squared error", REGULARISE, minimum=0)] = 1.0
    map_scale: Annotated[
        float,
        Option(
            "factor on maps before errors are taken, which weighs squares against absolutes (the published code: 128)",
            REGULARISE,
            minimum=0,
            exclusive=True,
        ),
    ] = 10.0
    changed_weight: Annotated[
        float, Option("what a changed pixel counts in `weighted-l1-l2`, beside 1 for others", REGULARISE, minimum=0)
    ] = 10.0
    changed_above: Annotated[
        float,
        Option("a pixel has changed where the true map is further from 0", REGULARISE, minimum=0, maximum=1),
    ] = 0.02
    ssim_weight: Annotated[
        float, Option("weight of 1 - SSIM (the published code: 1.5, switched off)", REGULARISE, minimum=0)
    ] = 0.0
    gradient_weight: Annotated[
        float, Option("weight of the error of slopes at full, half, quarter and eighth size", REGULARISE, minimum=0)
    ] = 0.0
    fourier_weight: Annotated[
        float,
        Option("weight of the error of log spectra (the published code: 0.3, switched off)", REGULARISE, minimum=0),
    ] = 0.0
    adversarial: Annotated[
        bool, Option("let a discriminator of patches learn beside it, to be deceived", REGULARISE)
    ] = False
    adversarial_weight: Annotated[
        float, Option("weight of deceiving the discriminator", REGULARISE, minimum=0, exclusive=True)
    ] = 0.5
    adversarial_from: Annotated[
        int, Option("first epoch with it, from 1 (the published code: 13)", REGULARISE, "EPOCH", minimum=1)
    ] = 1
    discriminator_lr: Annotated[
        float | None,
        Option("peak rate of the discriminator (default: that of the network)", LEARN, minimum=0, exclusive=True),
    ] = None


@dataclass(frozen=True, kw_only=True)
class MaskSettings:
    """What `diffmap pretrain` hides from the network."""

    mask_mode: Annotated[
        Literal["single", "random", "checkerboard"],
        Option("hide one patch, preferably near the centre, each patch by chance, or every other one", THIS),
    ] = "random"
    mask_ratio: Annotated[
        float,
        Option(
            "largest chance of a patch to be hidden; it rises from 0.05 to this over the first quarter of the run",
            THIS,
            minimum=0.05,
            maximum=0.95,
        ),
    ] = 0.7
    mask_patches: Annotated[int, Option("patches along each side", THIS, minimum=2, maximum=64)] = 4


@dataclass(frozen=True, kw_only=True)
class PairSynthSettings:
    """Which synthetic pairs are made."""

    pairs: Annotated[int, Option("how many pairs are made", THIS, "N", minimum=1)] = 200
    source: Annotated[
        str,
        Option(
            "`phantom`, or a folder of real frontal chest radiographs to draw findings into", THIS, "FOLDER|phantom"
        ),
    ] = "phantom"
    nuisance: Annotated[
        tuple[float, ...],
        Option(
            "factor on how much pose, exposure and devices differ between the two images; 0 for nothing but the "
            "change; with two, each pair draws its own between them",
            THIS,
            "X[,Y]",
            minimum=0,
            maximum=3,
        ),
    ] = (1.0,)
    nuisance_only: Annotated[
        float, Option("share of pairs in which nothing else differs", THIS, "SHARE", minimum=0, maximum=1)
    ] = 0.2


@dataclass(frozen=True, kw_only=True)
class FoundMapSettings:
    """How a map is made of a pair, and what of it is a finding."""

    run: Annotated[
        str | None,
        Option(
            "run of `diffmap train`, or bundle of `export`, that makes the map (default: subtraction, without weights)",
            MODEL,
            "RUN",
            completes="run",
        ),
    ] = None
    antisymmetric: Annotated[
        bool,
        Option("half the map less half that of the exchanged images, so that equal images give zero", THIS),
    ] = True
    allow_mismatch: Annotated[
        bool,
        Option("go on where patient, view, order in time or alignment speak against comparing the images", THIS),
    ] = False
    threshold: Annotated[
        float | None,
        Option(
            "pixels of a finding have at least this |map| (default: what validation pairs chose for the run)",
            THIS,
            minimum=0,
            maximum=1,
            exclusive=True,
        ),
    ] = None
    min_area: Annotated[
        int | None,
        Option(
            "smallest finding, in pixels of the map as the model makes it (default: 0.1% of them)",
            THIS,
            "PIXELS",
            minimum=1,
        ),
    ] = None
    dead_zone: Annotated[
        float | None,
        Option("no colour where |map| stays below this (default: half the threshold)", THIS, minimum=0, maximum=1),
    ] = None
    colour_limit: Annotated[
        float,
        Option(
            "|map| at which the colour is strongest; fixed, lest noise be drawn as findings",
            THIS,
            minimum=0,
            maximum=1,
            exclusive=True,
        ),
    ] = 0.3


@dataclass(frozen=True, kw_only=True)
class MapScoreSettings:
    """How maps of what changed are judged, and what is kept of that."""

    min_auprc: Annotated[
        float | None,
        Option("exit with status 4 if the AUPRC of changed pixels is below this", REPORT, minimum=0, maximum=1),
    ] = None
    readers: Annotated[
        str | None,
        Option(
            "what readers marked: `PAIR/READER.json` with ellipses (cx, cy, rx, ry, angle, label)",
            THIS,
            "FOLDER",
            completes="dir",
        ),
    ] = None
    save_maps: Annotated[
        str | None, Option("also write every map here, as `PAIR.npy`", REPORT, "DIR", flag_only=True, completes="dir")
    ] = None
    figure: Annotated[
        str | None,
        Option(
            "also draw precision-recall, FROC and threshold curves into this .png",
            REPORT,
            "FILE",
            flag_only=True,
            completes="path",
        ),
    ] = None
