"""Tensors on disk: written whole or not at all, readable as other files are; full disk and damage in a sentence."""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from medcli.errors import RunFailure, UsageProblem
from medcli.runs.directory import writing

__all__ = ["damaged", "write_tensors"]


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Write one safetensors file, replacing an older one only when the new one is complete.

    Args:
        path: the file, in a directory that exists.
        tensors: contiguous, on the CPU, sharing no memory.
        metadata: text by name.

    Raises:
        RunFailure: no space, no permission.
    """
    draft = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    with writing(path):
        try:
            save_file(dict(tensors), draft, metadata=dict(metadata))
            with draft.open("rb+") as handle:
                os.fsync(handle.fileno())
            # safetensors makes files that only their owner can read; a run is as open as the user's other files.
            draft.chmod(0o666 & ~_umask())
            draft.replace(path)
        except SafetensorError as error:
            # safetensors words a full disk itself, with the system's error number inside.
            if number := re.search(r"os error (\d+)", str(error)):
                raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
            raise RunFailure(f"`{path}` cannot be written: {error}", code="cannot-write") from error
        finally:
            draft.unlink(missing_ok=True)


def damaged(path: Path, error: Exception) -> UsageProblem:
    """The refusal of a run's file of tensors that cannot be read (code `bad-model-file`)."""
    return UsageProblem(
        f"`{path}` is damaged or no safetensors file: {error}",
        hint="copy it once more from where it came, whole; `medcli runs list` shows what else is here",
        code="bad-model-file",
    )


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask
