"""What LanceDB raises for files that are cut off, missing or foreign, as one error that names the gallery."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vireid.errors import DiskFull, GalleryDamaged, VireidError
from vireid.system import no_space

FILES = re.compile(r"LanceError\(IO\)|not found|Lance file|corrupt|magic|too small", re.IGNORECASE)


@contextmanager
def named(path: Path) -> Iterator[None]:
    """GalleryDamaged, which names the gallery at `path`, or DiskFull; other errors are faults of vireid and pass."""
    try:
        yield
    except VireidError:
        raise
    except (RuntimeError, OSError, ValueError) as error:
        if no_space(error):
            raise DiskFull(path) from error
        if isinstance(error, OSError) or FILES.search(str(error)):
            reason = str(error).partition(", /")[0].partition("\n")[0][:200]
            raise GalleryDamaged(
                f"files of the gallery {path} are damaged, missing or not readable ({reason}); put back a whole copy "
                "of the folder, or index the pictures again into a new gallery"
            ) from error
        raise
