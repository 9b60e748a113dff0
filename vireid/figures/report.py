"""The report of a run: one HTML page that holds all it shows, for reading, sending and keeping.

No script, no font and no picture is fetched; colors follow the reader's light or dark setting.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from html import escape
from pathlib import Path

from PIL import Image

from vireid.evaluation.results import COLUMNS, Results, percent, stamp_lines
from vireid.images import read, resize
from vireid.system import replacing
from vireid.training.run_folder import RunFolder
from vireid.types import Size

REPORT = "report.html"
WIDTH = 1152  # pixels: the 72rem that the page is wide; a picture in it is not wider
QUALITIES = (80, 65, 50, 35)  # of WebP: the first one that fits
PICTURES_BYTES = 1_300_000  # of all pictures together; base64 adds a third, and the page stays under 2 MB
STYLE = """
:root { color-scheme: light dark; --ink: #1c2026; --faint: #5c6570; --paper: #fff; --line: #d6dadf; --back: #f4f6f8 }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --faint: #a3abb5; --paper: #16181c; --line: #3a4048; --back: #21252b } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 72rem; padding: 1.5rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem } p, li { color: var(--faint) }
.wide { overflow-x: auto } table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .8rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left } th { font-weight: 600 }
pre { background: var(--back); padding: .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
img { box-sizing: border-box; max-width: 100%; height: auto; border: 1px solid var(--line) }
figure { margin: 1rem 0 } figcaption { color: var(--faint) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem } dd { margin: 0; overflow-wrap: anywhere }
ul { padding-left: 1.2rem; overflow-wrap: anywhere }
"""


def write_report(run: RunFolder, results: Results, command: str) -> Path:
    """Write RUN/report.html from figures, the command that repeats the training and the pictures in RUN/figures."""
    path = run.path / REPORT
    pictures = sorted((run.path / "figures").glob("*.png"))
    with replacing(path) as partial:
        partial.write_text(page(run, results, command, pictures), encoding="utf-8")
    return path


def page(run: RunFolder, results: Results, command: str, pictures: Sequence[Path]) -> str:
    """The page as text."""
    record = run.record
    whole = escape(json.dumps(record.plain(), indent=1, ensure_ascii=False))
    title = f"{record.method} on {record.trained_on_name}"
    parts = [
        f"<h1>{escape(title)}</h1><p>Run {escape(run.path.name)}, vireid {escape(run.stamp['vireid'])}</p>",
        "<h2>Results</h2>",
        results_table(results),
        "<h2>What was run</h2>",
        pairs({**record.stamp, "commit": record.git or "unknown", **record.versions}),
        "<h2>How to repeat it</h2>",
        f"<pre>{escape(command)}</pre>",
        f"<details><summary>The whole record</summary><pre>{whole}</pre></details>",
        *(["<h2>Ranked lists</h2>"] if pictures else []),
        *(figure(picture, PICTURES_BYTES // len(pictures)) for picture in pictures),
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    return (
        f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body><main>\n'
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


def results_table(results: Results) -> str:
    """The summaries in percent, the stamps below."""
    summaries = results.summaries
    header = ["protocol", *COLUMNS, "trials", "queries", "gallery", "stamp"]
    rows = [
        [
            s.protocol,
            *(percent(s.mean[column], None if s.std is None else s.std[column]) for column in COLUMNS),
            str(s.trials),
            s.num_queries,
            s.num_gallery,
            f"[{number}]",
        ]
        for number, s in enumerate(summaries, 1)
    ]
    head = "".join(f'<th scope="col">{escape(name)}</th>' for name in header)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    notes = [*stamp_lines([s.stamp for s in summaries]), "percent; mean ± standard deviation over the trials (n - 1)"]
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>\n{body}</table></div>\n<ul>{listed}</ul>'


def pairs(values: dict[str, str]) -> str:
    """Names with their values."""
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in values.items())
    return f"<dl>{lines}</dl>"


def figure(path: Path, max_bytes: int) -> str:
    """A picture as part of the page, as small as it is shown; its file in the run folder has the full size."""
    data, (height, width) = as_shown(path, max_bytes)
    name, text = escape(path.stem, quote=True), base64.b64encode(data).decode()
    image = f'<img alt="{name}" width="{width}" height="{height}" src="data:image/webp;base64,{text}">'
    return f"<figure>{image}<figcaption>{name} (full size: {escape('/'.join(path.parts[-2:]))})</figcaption></figure>"


def as_shown(path: Path, max_bytes: int) -> tuple[bytes, Size]:
    """A picture as WebP and its size: at most WIDTH wide, of the first of QUALITIES that gives `max_bytes` or less.

    The last quality is kept where none does. Raises PictureError for an unreadable picture.
    """
    picture = read(path)
    if picture.width > WIDTH:
        size = (round(picture.height * WIDTH / picture.width), WIDTH)
        picture = Image.fromarray(resize(picture, size))
    data = b""
    for quality in QUALITIES:
        file = io.BytesIO()
        picture.save(file, "WEBP", quality=quality)
        data = file.getvalue()
        if len(data) <= max_bytes:
            break
    return data, (picture.height, picture.width)
