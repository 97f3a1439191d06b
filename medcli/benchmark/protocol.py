"""How figures are measured, in words: written once, for the results, for the README and for whoever quotes a row."""

from __future__ import annotations

from medcli.benchmark.clock import APART, FEWEST, MOST, QUIET, TURNS, WARMUPS
from medcli.benchmark.plan import BenchmarkPlan

__all__ = ["PROTOCOL", "protocol_of"]

PROTOCOL = (
    "Every model is measured in a fresh interpreter of its own, one after another, within a time and a memory limit. "
    "The network, its head included, is in eval mode under `torch.inference_mode`; inputs are normal random numbers "
    "that lie on the device before the clock starts, so reading, resizing and copying images are not in these times. "
    f"For each batch size there are {WARMUPS} warm-up passes after the first (fewer where these fill the time box), "
    f"then passes are timed one by one until the time box is spent ({FEWEST} to {MOST} passes), with the device "
    f"synchronised before and after each and Python's garbage collector at rest. The time box has {TURNS} turns: all "
    f"batch sizes take their first, then all their second, and so on, at least {APART} s apart (the time box, where "
    "that is shorter), each after one more warm-up pass where these are short. Other work makes passes longer, never "
    f"shorter, so turns count whose median is at most {round(100 * (QUIET - 1))} % above the quietest turn's, and the "
    "medians of all turns are recorded. Given are the median and the 90th percentile over the passes of the turns that "
    "count, and images per second as batch size over median; a batch size is never changed: one that does not fit is a "
    "row that says so. MACs are multiply-accumulate operations of convolutions, matrix products and "
    "attention for one image, half of what torch's counter calls FLOPs. Peak memory is the resident memory of the "
    "whole process, interpreter and libraries included, set back before the first turn of each batch size and "
    "read after it (Linux; elsewhere it is the peak of the process, and the row says so); device memory is what torch "
    "allocated there at most. Start-up runs "
    "from the start of the interpreter to the first result of batch size 1. Networks have random weights drawn from "
    "one seed (a run its own), which changes accuracy, not speed. A difference model is measured on pairs of images. "
    "Limits: medians of one machine at one time; other work on the machine, its temperature and its clock change "
    "them, so processors kept busy by others are recorded with every row, and rows of different machines, thread "
    "counts or number formats are not compared."
)


def protocol_of(plan: BenchmarkPlan) -> dict[str, object]:
    """What was set, for the results."""
    speed = plan.speed
    return {
        "text": PROTOCOL,
        "batch_sizes": list(speed.batch_sizes),
        "seconds": speed.seconds,
        "repeats": speed.repeats,
        "warmups": WARMUPS,
        "turns": TURNS,
        "clock": "time.perf_counter",
        "device": speed.device,
        "precision": speed.precision,
        "memory_format": speed.memory_format,
        "compile": speed.compile,
        "threads": speed.threads,
        "runtime": speed.runtime,
        "classes": speed.classes,
        "image_size": speed.image_size,
        "in_channels": speed.in_channels,
        "time_limit": plan.time_limit,
        "memory_limit": plan.memory_limit,
    }
