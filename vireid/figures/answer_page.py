"""The answer to one search as an HTML page that holds its pictures, for reading, sending and keeping."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from vireid.figures.report import STYLE, pairs

OWN_STYLE = """
ol, .queries { display: grid; grid-template-columns: repeat(auto-fill, minmax(8.5rem, 1fr)); gap: 1rem; padding: 0;
  margin: 0; list-style: none }
ol figure, .queries figure { margin: 0; font-size: .8rem; line-height: 1.4; overflow-wrap: anywhere }
ol img, .queries img { display: block; width: 8rem } ol, .queries { margin-top: 1rem }
figcaption b { color: var(--ink) } dl { margin: .8rem 0 } h1 { overflow-wrap: anywhere } dd { white-space: pre-line }
@page { margin: 14mm }
@media print { h1 { font-size: 1.3rem } h2 { margin-top: 1rem; break-after: avoid } p, dl { font-size: .75rem }
  ol, .queries { grid-template-columns: repeat(6, 1fr); gap: .6rem } ol figure, .queries figure { font-size: .56rem;
  line-height: 1.25 } ol img, .queries img { width: auto; max-width: 100%; max-height: 36mm } }
"""


@dataclass(frozen=True)
class Shown:
    """A picture of the page: JPEG bytes, None where there is no thumbnail, and the lines below it."""

    jpeg: bytes | None
    lines: tuple[str, ...]


def answer_page(
    title: str,
    queries: Sequence[Shown],
    hits: Sequence[Shown],
    verdict: str,
    stamp: dict[str, str],
    about: dict[str, str] | None = None,
) -> str:
    """The page as text: `about`, what was searched with, `verdict`, the hits in order, and how the list came about."""
    listed = "".join(f"<li>{picture(hit)}</li>" for hit in hits)
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE}{OWN_STYLE}</style>"
    body = [
        f"<h1>{escape(title)}</h1>",
        pairs(about) if about else "",
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
    first, *others = map(escape, shown.lines)
    lines = "<br>".join([f"<b>{first}</b>", *others])
    if shown.jpeg is None:
        return f"<figure><figcaption>no thumbnail<br>{lines}</figcaption></figure>"
    data, alt = base64.b64encode(shown.jpeg).decode(), escape(shown.lines[0], quote=True)
    return f'<figure><img alt="{alt}" src="data:image/jpeg;base64,{data}"><figcaption>{lines}</figcaption></figure>'
