"""`thermal_low` and `thermal_high` of a manifest: the range of a camera's gray values of more than 8 bits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vireid.data.table import ENDS
from vireid.errors import DataError
from vireid.table_file import camera_ranges


def gray_columns(
    path: Path, cells: Mapping[str, Sequence[str]], camids: Sequence[int], lines: Sequence[int]
) -> dict[str, np.ndarray]:
    """Both columns (R,) float64, {} without them; a blank is the range of its camera's other rows, or nan.

    `cells` are texts by column, `lines` the numbers of the rows in the file. Raises DataError for one column without
    the other, for a bad range and for two ranges of one camera.
    """
    given = [name for name in ENDS if name in cells]
    if not given:
        return {}
    if len(given) < len(ENDS):
        raise DataError(f"{path}: expected both columns {' and '.join(ENDS)}, came `{given[0]}` alone; add the other")
    ranges = camera_ranges(zip(camids, cells[ENDS[0]], cells[ENDS[1]], lines, strict=True), ENDS, path, DataError)
    filled = np.array([ranges.get(camid, (np.nan, np.nan)) for camid in camids], dtype=np.float64)
    return {name: filled[:, column] for column, name in enumerate(ENDS)}
