"""What a plugin promises to whoever waits for it: import, build and one image within limits of time and memory."""

from __future__ import annotations

import json
import subprocess
import sys

from medcli.testing.checks.subject import Subject
from medcli.testing.checks.verdict import fail
from medcli.testing.command import child_environment

__all__ = ["allowance", "limits"]

# Processor time and peak memory, both counted from after `import torch`, which is not the plugin's doing. On Linux the
# peak that `resource` gives is no good: a child starts with its parent's.
_MEASURE = """
import json, os, sys, time
report = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)
import torch
from medcli.registry.discovery import discover, find, load_factory
asked = json.loads(sys.argv[1])
def peak():
    try:
        lines = open("/proc/self/status").read().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 2**10
    except (OSError, StopIteration):
        import resource
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
def spent():
    return time.process_time(), peak()
before = spent()
network = load_factory(find(discover(), asked["name"], asked["group"]))(
    in_channels=asked["channels"], image_size=asked["size"], **asked["options"]
).eval()
images = [torch.zeros(1, asked["channels"], asked["size"], asked["size"]) for _ in range(asked["inputs"])]
with torch.no_grad():
    network(*images)
after = spent()
print(json.dumps([after[0] - before[0], after[1] - before[1]]), file=report, flush=True)
"""
_FACTOR = 20  # wall clock over processor time before a child counts as hanging


def allowance(subject: Subject) -> tuple[float, float]:
    """Seconds of processor time and MiB that are allowed.

    Where the author sets none: 30 s for imports, and per million parameters 0.3 s (drawing them, and one pass) and
    16 MiB (four copies); the activations of one image are in the base of 1 GiB.
    """
    millions = ((subject.card.params if subject.card else None) or 0) / 1e6
    seconds, megabytes = subject.plan.seconds, subject.plan.megabytes
    return (
        30.0 + 0.3 * millions if seconds is None else seconds,
        1024.0 + 16.0 * millions if megabytes is None else megabytes,
    )


def limits(subject: Subject) -> str:
    """Import, build at the card's size, one image."""
    seconds, megabytes = allowance(subject)
    entry = subject.entry
    asked = {
        "name": entry.qualified,
        "group": entry.group,
        "channels": subject.channels,
        "size": subject.small_size if subject.plan.options else subject.native_size,
        "options": dict(subject.plan.options),
        "inputs": 2 if subject.is_difference else 1,
    }
    patience = max(60.0, _FACTOR * seconds)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _MEASURE, json.dumps(asked)],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            encoding="utf-8",
            errors="replace",
            timeout=patience,
            env=child_environment({"OMP_NUM_THREADS": "1"}),
            check=False,
        )
    except subprocess.TimeoutExpired:
        fail(f"import, build and one image did not end within {patience:g} s")
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        fail(f"import, build and one image ended with status {done.returncode}: {lines[-1][:300] if lines else ''}")
    took, grew = json.loads(done.stdout)
    if took > seconds:
        fail(f"import, build and one image take {took:.1f} s of processor time, more than the {seconds:g} s allowed")
    if grew > megabytes:
        fail(f"import, build and one image take {grew:.0f} MiB, more than the {megabytes:g} MiB allowed")
    return f"{took:.1f} s, {grew:.0f} MiB"
