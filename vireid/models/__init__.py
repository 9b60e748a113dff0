"""Models that come with vireid: each a bundle in a folder of this one, found by its name."""

from __future__ import annotations

import difflib
import json
from pathlib import Path

from vireid.errors import BundleError

FOLDER = Path(__file__).parent
CONFIG, CARD = "config.json", "README.md"
DEFAULT = "night"  # where a command names no model


def names() -> list[str]:
    """The models that come with this version, sorted."""
    return sorted(path.parent.name for path in FOLDER.glob(f"*/{CONFIG}"))


def path_of(name: str) -> Path:
    """The folder of a model by name; BundleError with the closest name if there is none."""
    known = names()
    if name not in known:
        close = difflib.get_close_matches(name, known, 1, 0.5)
        listed = ", ".join(known) or "none in this version"
        hint = f"; did you mean {close[0]}?" if close else ""
        raise BundleError(
            f"no model or folder is called {name!r}; models that come with vireid: {listed}{hint}. Give the path of a "
            "run folder that `vireid train` wrote, or of a bundle that `vireid export` wrote"
        )
    return FOLDER / name


def card_of(name: str) -> str:
    """The card of a model by name; BundleError if there is none."""
    return (path_of(name) / CARD).read_text(encoding="utf-8").rstrip()


def summary_of(name: str) -> str:
    """What a model is for: the first paragraph of its card, in one line."""
    return " ".join(card_of(name).split("\n\n")[1].split())


def name_of(digest: str) -> str | None:
    """The model whose network's file has this sha256; None where none of them has."""
    for name in names():
        if json.loads((FOLDER / name / CONFIG).read_text(encoding="utf-8"))["digest"] == digest:
            return name
    return None
