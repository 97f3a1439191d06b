"""Settings of `benchmark`: what is measured, how often, and within which limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from medcli.settings.option import COMPUTE, REPORT, THIS, Option

__all__ = ["BenchmarkSettings"]


@dataclass(frozen=True, kw_only=True)
class BenchmarkSettings:
    """What is measured, how often, and within which limits."""

    all: Annotated[
        bool, Option("every named architecture and difference model that is installed", THIS, flag_only=True)
    ] = False
    filter: Annotated[
        tuple[str, ...],
        Option(
            "of everything installed those whose name matches, such as 'resnet*'; the only way into a namespace: "
            "'timm/resnet*'",
            THIS,
            "GLOB",
        ),
    ] = ()
    list: Annotated[bool, Option("only say what would be measured", THIS, flag_only=True)] = False
    batch_sizes: Annotated[
        tuple[int, ...], Option("images per pass, each measured by itself and never changed", THIS, "N,…", minimum=1)
    ] = (1, 8)
    repeats: Annotated[
        int | None,
        Option("timed passes per batch size (default: as many as fit into `--seconds`, 5 to 1000)", THIS, minimum=1),
    ] = None
    seconds: Annotated[
        float, Option("time given to the timed passes of a batch size", THIS, "S", minimum=0, exclusive=True)
    ] = 3.0
    time_limit: Annotated[
        float | None,
        Option(
            "seconds after which the process of one row is ended (default: 600, a training 3600)",
            THIS,
            "S",
            minimum=0,
            exclusive=True,
            safe_on_resume=True,
        ),
    ] = None
    memory_limit: Annotated[
        float | None,
        Option(
            "resident memory in GiB after which the process of one row is ended (default: nine tenths of what is free)",
            THIS,
            "GIB",
            minimum=0,
            exclusive=True,
            safe_on_resume=True,
        ),
    ] = None
    threads: Annotated[
        int | None, Option("threads a network gets on a CPU (default: what torch takes)", COMPUTE, "N", minimum=1)
    ] = None
    memory_format: Annotated[
        Literal["auto", "channels-first", "channels-last"],
        Option("order of pixels in memory (auto: channels last where the network is convolutional)", COMPUTE),
    ] = "auto"
    compare_to: Annotated[
        str | None,
        Option(
            "results of an earlier benchmark; exit with status 4 where something has become worse",
            REPORT,
            "FILE",
            flag_only=True,
            completes="path",
        ),
    ] = None
    max_slowdown: Annotated[
        float,
        Option(
            "with --compare-to: share by which a median or a memory peak may grow before that counts as worse",
            REPORT,
            "SHARE",
            minimum=0,
        ),
    ] = 0.15
