"""Arrays of a .npz file by name; nothing in the file is executed."""

from __future__ import annotations

import zipfile
import zlib
from pathlib import Path

import numpy as np

DAMAGE = (  # what NumPy and zipfile raise for a file that is cut off, changed, packed in another way or no .npz at all
    ValueError, OSError, EOFError, KeyError, TypeError, AttributeError, NotImplementedError, RuntimeError,
    zipfile.BadZipFile, zlib.error,
)  # fmt: skip


def read_arrays(file: Path) -> dict[str, np.ndarray]:
    """All arrays of a file; ValueError for one that is not a whole .npz of numbers and texts."""
    try:
        with file.open("rb") as opened, np.load(opened, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except DAMAGE as error:
        reason = str(error).partition(" If you trust")[0]  # without NumPy's advice to switch its protection off
        raise ValueError(f"not a whole .npz file of numbers and texts: {reason}") from error
