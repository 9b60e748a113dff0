"""Numbers in sentences: `1 match`, `2 matches`, `1 in 1,000`."""

from __future__ import annotations


def counted(count: int, singular: str, plural: str | None = None, *, more: bool = False) -> str:
    """A number with its noun; `more` says that it is a lower bound.

    >>> counted(1, "picture"), counted(1200, "picture"), counted(2, "match", "matches", more=True)
    ('1 picture', '1,200 pictures', '2 or more matches')
    """
    noun = singular if count == 1 and not more else plural or f"{singular}s"
    return f"{count:,}{' or more' if more else ''} {noun}"


def one_in(chance: float) -> str:
    """A small probability or rate as people say it.

    >>> one_in(0.001), one_in(0.5), one_in(0.3)
    ('1 in 1,000', '1 in 2', '0.3')
    """
    times = round(1 / chance)
    return f"1 in {times:,}" if abs(times * chance - 1) < 1e-6 else f"{chance:g}"
