"""Times as lists and options have them: Unix seconds or a date with a time of day; nothing is guessed."""

from __future__ import annotations

import math
import re
from datetime import datetime

from vireid.errors import SourceError
from vireid.table_file import number

FIRST_S, LAST_S = 631_152_000, 4_102_444_800  # 1990 and 2100: a camera's pictures lie between
FIRST_DAY, LAST_DAY = 32_874, 73_051  # the same, in the days that spreadsheets count from 1900
COMPACT = re.compile(r"(?:19|20)[0-9]{6}(?:[T ]?[0-9]{6})?")  # 20261124, 20261124210411
PARTS = {1e3: "milliseconds", 1e6: "microseconds", 1e9: "nanoseconds"}  # of a second
FORMS = "2026-11-24T21:04:11+01:00, 20261124T210411 or Unix seconds"


def seconds(text: str, where: str) -> float:
    """Unix seconds of a date or a number, nan for nothing; a date without a zone is in this machine's.

    Raises SourceError for every other text, and for a number outside 1990 to 2100.

    >>> seconds("1795550400.5", "")
    1795550400.5
    >>> seconds("20261124T210411+00:00", "") == seconds("2026-11-24T21:04:11Z", "")
    True
    """
    if not text:
        return math.nan
    is_date = COMPACT.fullmatch(text) and text.isdigit()
    written = text[:8] + "T" + text[8:].ljust(6, "0") if is_date else text
    try:
        value = number(written)
    except ValueError:
        try:
            value = datetime.fromisoformat(written).timestamp()
        except (ValueError, OverflowError, OSError):
            raise SourceError(f"{where}: time is like {FORMS}, got {text[:40]!r}") from None
    if FIRST_S <= value < LAST_S:
        return value
    part = next((name for factor, name in PARTS.items() if FIRST_S <= value / factor < LAST_S), "")
    advice = f"these look like {part}: divide them" if part else f"expected {FORMS}"
    if FIRST_DAY <= value < LAST_DAY:
        advice = "this looks like the day number of a spreadsheet: write it as a date, " + FORMS
    raise SourceError(f"{where}: {text[:40]} is not a time between 1990 and 2100; {advice}")
