"""The answer to one search as an HTML page that holds its pictures, for reading, sending and keeping."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from vireid.figures.report import STYLE, pairs

OWN_STYLE = """
ol, .queries { display: flex; flex-wrap: wrap; gap: 1rem; padding: 0; margin: 0; list-style: none }
li { width: 9rem; overflow-wrap: anywhere } li img, .queries img { width: 8rem }
"""


@dataclass(frozen=True)
class Shown:
    """A picture of the page: JPEG bytes, None where there is no thumbnail, and the lines below it."""

    jpeg: bytes | None
    lines: tuple[str, ...]


def answer_page(
    title: str, queries: Sequence[Shown], hits: Sequence[Shown], verdict: str, stamp: dict[str, str]
) -> str:
    """The page as text: what was searched with, `verdict`, the hits in order, and how the list came about."""
    listed = "".join(f"<li>{picture(hit)}</li>" for hit in hits)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE}{OWN_STYLE}</style>"
    body = [
        f"<h1>{escape(title)}</h1>",
        f'<div class="queries">{"".join(picture(query) for query in queries)}</div>',
        f"<h2>Hits</h2><p>{escape(verdict)}</p>",
        f"<ol>{listed}</ol>",
        "<h2>How it was searched</h2>",
        pairs(stamp),
    ]
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
        + "\n".join(body)
        + "\n</main></body></html>\n"
    )


def picture(shown: Shown) -> str:
    """A picture with its lines."""
    lines = "<br>".join(map(escape, shown.lines))
    if shown.jpeg is None:
        return f"<figure><figcaption>no thumbnail<br>{lines}</figcaption></figure>"
    data, alt = base64.b64encode(shown.jpeg).decode(), escape(shown.lines[0], quote=True)
    return f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{data}"><figcaption>{lines}</figcaption></figure>'
