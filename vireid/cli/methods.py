"""How `vireid methods NAME` is printed."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterator, Mapping, Sequence

from vireid.declaration import REQUIRED, value_text
from vireid.training.settings import Setting

MIN_TEXT = 40  # columns that a line of documentation needs beside a setting; with fewer it stands under it


def print_settings(groups: Mapping[str, Sequence[Setting]]) -> None:
    """Print every setting as `name=default`, its type and its line of documentation, group by group."""
    width = shutil.get_terminal_size((80, 24)).columns
    for title, settings in groups.items():
        print(f"{title}:")
        print("\n".join(lines(settings, width)) if settings else "  none")


def lines(settings: Sequence[Setting], width: int) -> Iterator[str]:
    """The lines for a terminal of `width` columns: side by side where there is room, else one below the other."""
    rows = [
        (f"{one.name}=" if one.default is REQUIRED else f"{one.name}={value_text(one.default)}",
         one.type + (", required" if one.default is REQUIRED else ""), one.documentation)
        for one in settings
    ]  # fmt: skip
    first, second = (max(len(row[column]) for row in rows) for column in (0, 1))
    indent = 2 + first + 2 + second + 2
    for word, kind, text in rows:
        if width - indent >= MIN_TEXT:
            head = f"  {word:<{first}}  {kind:<{second}}  "
            yield from textwrap.wrap(text, width, initial_indent=head, subsequent_indent=" " * indent) or [head]
        else:
            yield from textwrap.wrap(kind, width, initial_indent=f"  {word}  ", subsequent_indent=" " * 6)
            yield from textwrap.wrap(text, width, initial_indent=" " * 6, subsequent_indent=" " * 6)
