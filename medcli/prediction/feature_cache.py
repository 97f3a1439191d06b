"""Features kept on disk by what they were made from, so that no picture goes through the same backbone twice.

At most `LIMIT_BYTES` lie there: after every write the files that were used longest ago are deleted, but none that was
used within the last hour, since a running training may come back to it.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from medcli.caches import cache_root
from medcli.models.tensor_file import write_tensors

__all__ = ["LIMIT_BYTES", "DamagedFeatures", "FeatureCache", "feature_directory"]

SCHEMA = "medcli-features/1"
LIMIT_BYTES = 16 * 2**30
IN_USE_SECONDS = 3600


class DamagedFeatures(Exception):
    """A file that is there but is not what was written; the caller computes its features again and says so."""


def feature_directory() -> Path:
    """Where features lie, below the root of all caches."""
    return cache_root() / "features"


@dataclass(frozen=True)
class FeatureCache:
    """Features by key.

    Args:
        directory: where the files lie; made when the first is written.
        limit: most bytes that all of them may take.
    """

    directory: Path = field(default_factory=feature_directory)
    limit: int = LIMIT_BYTES

    def path(self, key: str) -> Path:
        """The file of a key."""
        return self.directory / f"{key}.safetensors"

    def read(self, key: str, rows: int) -> Tensor | None:
        """float32 [rows, D], or None where nothing is kept.

        Raises:
            DamagedFeatures: the file is cut short, changed, or of another shape.
        """
        path = self.path(key)
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                facts = json.loads((file.metadata() or {})["medcli"])
                features: Tensor = file.get_tensor("features")
            whole = facts["schema"] == SCHEMA and facts["digest"] == _digest(features)
        except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
            raise DamagedFeatures(str(error)) from error
        if not whole or features.shape[:-1] != (rows,) or features.dtype != torch.float32:
            raise DamagedFeatures("its contents are not those that were written")
        with suppress(OSError):
            os.utime(path)  # when it was last used, which decides what is deleted first
        return features

    def write(self, key: str, features: Tensor, about: str) -> None:
        """Keep features [n, D] and make room.

        Args:
            about: what they are, for people who look into the file.

        Raises:
            RunFailure: no space, no permission.
            OSError: the directory cannot be made.
        """
        self.directory.mkdir(parents=True, exist_ok=True)
        own = features.detach().to("cpu", torch.float32).contiguous()
        facts = {"schema": SCHEMA, "digest": _digest(own), "about": about}
        write_tensors(self.path(key), {"features": own}, {"medcli": json.dumps(facts)})
        self.make_room()

    def make_room(self) -> None:
        """Delete the files used longest ago until the rest fits."""
        now, found = time.time(), []
        for path in (*self.directory.glob("*.safetensors"), *self.directory.glob(".*.safetensors.*")):
            with suppress(OSError):  # another process may be tidying too
                facts = path.stat()
                found.append((facts.st_mtime, facts.st_size, path))
        total = sum(size for _, size, _ in found)
        for used, size, path in sorted(found):
            if now - used < IN_USE_SECONDS:
                return
            # A hidden file that old is what a killed process left half-written.
            if total > self.limit or path.name.startswith("."):
                with suppress(OSError):
                    path.unlink()
                    total -= size


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().view(torch.uint8).numpy().data).hexdigest()
