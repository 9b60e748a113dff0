"""The report on one run or several: one HTML page that holds all it shows, for reading, sending and keeping.

No script, no font and no picture is fetched; colors follow the reader's light or dark setting.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from pathlib import Path

from PIL import Image

from vireid.evaluation.paired_table import HEADER, PairedTable
from vireid.evaluation.results import COLUMNS, Results
from vireid.figures.report_words import FIGURES, HEADINGS, WORDS
from vireid.figures.stamp_words import said_in
from vireid.images import read, resize
from vireid.training.run_folder import RunFolder
from vireid.types import Language, Size

WIDTH = 1152  # pixels: a picture in the page is not wider
QUALITIES = (80, 65, 50, 35)  # of WebP: the first one that fits
MAX_BYTES = 1_950_000  # of the page: pictures of ranked lists get what the rest leaves
TEXT_COLUMNS = ("name", "protocol", "method", "against", "stamp", "run")  # the others hold numbers
STYLE = """
:root { color-scheme: light dark; --ink: #1c2026; --faint: #5c6570; --paper: #fff; --line: #d6dadf; --back: #f4f6f8;
  --right: #00784e; --wrong: #b8331f; --shade: #0003 }
@media screen and (prefers-color-scheme: dark) {
  :root { --ink: #e8eaed; --faint: #a3abb5; --paper: #16181c; --line: #3a4048; --back: #21252b; --right: #3ecf95;
    --wrong: #ff8a75; --shade: #000a } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--ink); background: var(--paper); margin: 0 auto;
  max-width: 76rem; padding: 1.5rem }
h1 { font-size: 1.6rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2rem 0 .5rem } p, li { color: var(--faint) }
h3 { font-size: 1rem; margin: 1.2rem 0 .3rem }
.wide { overflow-x: auto; background: linear-gradient(90deg, var(--paper) 40%, transparent) 0 0 / 3rem 100%,
  linear-gradient(270deg, var(--paper) 40%, transparent) 100% 0 / 3rem 100%,
  linear-gradient(90deg, var(--shade), transparent) 0 0 / .8rem 100%,
  linear-gradient(270deg, var(--shade), transparent) 100% 0 / .8rem 100%; background-repeat: no-repeat;
  background-attachment: local, local, scroll, scroll } /* a shade where more columns lie */
table { border-collapse: collapse; font-size: .8rem; font-variant-numeric: tabular-nums }
th, td { padding: .35rem .45rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap }
th:first-child, td:first-child, th.text, td.text { text-align: left } th { font-weight: 600 }
pre { background: var(--back); padding: .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere }
img { box-sizing: border-box; max-width: 100%; height: auto; border: 1px solid var(--line) }
svg.figure { max-width: 100%; height: auto } svg.figure text { font-family: system-ui, sans-serif !important }
figure { margin: 1rem 0 } figcaption { color: var(--faint) }
.figures { columns: 2 30rem; column-gap: 2rem } .figures figure { margin: 0 0 1.5rem; break-inside: avoid }
summary { cursor: pointer; padding: .3rem 0; overflow-wrap: anywhere }
.hits { display: flex; flex-wrap: wrap; gap: .8rem; padding: .3rem 0 1rem; margin: 0; list-style: none }
.hits li { width: 5.2rem; font-size: .8rem; line-height: 1.3 }
.hits img { display: block; width: 4.5rem; border: 4px solid var(--faint) }
.hits .same img { border-color: var(--right) } .hits .other img { border: 4px dashed var(--wrong) }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1rem } dd { margin: 0; overflow-wrap: anywhere }
ul { padding-left: 1.2rem; overflow-wrap: anywhere }
@media (max-width: 40rem) { dl { grid-template-columns: 1fr } dd { padding-bottom: .4rem } }
@media print { :root { color-scheme: light } body { max-width: none; padding: 0 }
  figure, tr, .hits { break-inside: avoid } .wide { overflow: visible; background: none }
  th, td { padding: .2rem .25rem; font-size: .6rem; white-space: normal } }
"""


@dataclass(frozen=True)
class Thumbnail:
    """A small picture (WebP) of a list: `kind` is query, same or other; `lines` stand below it."""

    webp: bytes
    kind: str
    lines: tuple[str, ...]


@dataclass(frozen=True)
class Failure:
    """A query that the run finds hardly: what it is, and its pictures, the query first."""

    title: str
    pictures: tuple[Thumbnail, ...]


@dataclass(frozen=True)
class Reported:
    """What the page says of one run; `name` tells it apart from the others, `cost` are cells of a table."""

    folder: RunFolder
    name: str
    command: str
    cost: Mapping[str, str] = field(default_factory=dict)
    failures: tuple[Failure, ...] = ()
    failures_of: str = ""  # the protocol
    ranked: tuple[Path, ...] = ()  # pictures of ranked lists


@dataclass(frozen=True)
class Report:
    """All that a page shows: runs, their results, paired tests, figures (name and <svg>), and where it was made."""

    runs: Sequence[Reported]
    results: Results
    figures: Sequence[tuple[str, str]] = ()
    no_figures: str = ""  # why there are none
    paired: PairedTable | None = None
    device: str = ""
    lang: Language = "en"


def page(report: Report) -> str:
    """The page as text, below MAX_BYTES where its pictures can be made small enough."""
    words, first = WORDS[report.lang], report.runs[0].folder
    record = first.record
    if len(report.runs) == 1:
        title = words["title"].format(method=record.method, data=record.trained_on_name)
        lead = words["run"].format(name=first.path.name, version=first.stamp["vireid"])
    else:
        title = words["title of several"].format(count=len(report.runs))
        lead = ", ".join(run.name for run in report.runs)
    parts = [
        f"<h1>{escape(title)}</h1><p>{escape(lead)}</p>",
        f"<h2>{words['results']}</h2>",
        results_table(report.results, report.lang),
        *_paired(report),
        *_figures(report),
        *_failures(report),
        *_cost(report),
        *_records(report),
    ]
    ranked = [path for run in report.runs for path in run.ranked]
    room = 3 * (MAX_BYTES - sum(len(part.encode()) for part in parts)) // 4  # base64 adds a third
    if ranked:
        parts.insert(-1, f"<h2>{words['ranked']}</h2>")
        parts[-1:-1] = [figure(path, room // len(ranked), report.lang) for path in ranked]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    head += f"<title>{escape(title)}</title><style>{STYLE}</style>"
    lang = {"en": "en", "zh": "zh-CN"}[report.lang]
    return (
        f'<!doctype html>\n<html lang="{lang}"><head>{head}</head>\n<body><main>\n'
        + "\n".join(parts)
        + "\n</main></body></html>\n"
    )


# --- tables -----------------------------------------------------------------------------------------------------------


def results_table(results: Results, lang: Language) -> str:
    """The results in percent, best and second of several marked, the stamps below."""
    header, cells = results.cells()
    words, translated, protocol, stamp = WORDS[lang], said_in(lang), header.index("protocol"), header.index("stamp")
    ranked: dict[tuple[str, int], list[str]] = {}
    for row in cells:
        if row[stamp]:  # floors have no number
            for at in (header.index(name) for name in COLUMNS):
                ranked.setdefault((row[protocol], at), []).append(row[at].partition(" ")[0])
    marked = [
        [_marked(translated(cell), row, at, ranked, protocol, stamp) for at, cell in enumerate(row)] for row in cells
    ]
    notes = results.notes(translated)
    if any(len(set(values)) > 1 for values in ranked.values()):
        notes.append(words["marks"])
    return table(header, marked, notes, lang)


def _marked(
    cell: str, row: list[str], at: int, ranked: dict[tuple[str, int], list[str]], protocol: int, stamp: int
) -> str:
    """A cell as HTML: bold where its figure is the best of its protocol and column, underlined where it is second."""
    values = sorted(set(ranked.get((row[protocol], at), [])), key=float, reverse=True)
    figure, space, rest = escape(cell).partition(" ")
    if not row[stamp] or len(values) < 2 or figure not in values[:2]:
        return escape(cell)
    tag = "strong" if figure == values[0] else "u"
    return f"<{tag}>{figure}</{tag}>{space}{rest}"


def table(header: Sequence[str], cells: Sequence[Sequence[str]], notes: Sequence[str], lang: Language) -> str:
    """A table whose cells are HTML, with lines of text below it; a column without any content is left out."""
    kept = [at for at in range(len(header)) if not cells or any(row[at] for row in cells)]
    header, cells = [header[at] for at in kept], [[row[at] for at in kept] for row in cells]
    kinds = [' class="text"' if name in TEXT_COLUMNS else "" for name in header]
    names = [HEADINGS.get(name, name) if lang == "zh" else name for name in header]
    head = "".join(f'<th scope="col"{kind}>{escape(name)}</th>' for name, kind in zip(names, kinds, strict=True))
    lines = ["".join(f"<td{k}>{cell}</td>" for cell, k in zip(row, kinds, strict=True)) for row in cells]
    body = "\n".join(f"<tr>{line}</tr>" for line in lines)
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    below = f"\n<ul>{listed}</ul>" if listed else ""
    return f'<div class="wide" tabindex="0"><table><tr>{head}</tr>\n{body}</table></div>{below}'


def _paired(report: Report) -> list[str]:
    if report.paired is None:
        return []
    translated = said_in(report.lang)
    cells = [[escape(translated(cell)) for cell in row] for row in report.paired.cells()]
    return [
        f"<h2>{WORDS[report.lang]['paired']}</h2>",
        table(HEADER, cells, report.paired.notes(translated), report.lang),
    ]


def _cost(report: Report) -> list[str]:
    words = WORDS[report.lang]
    runs = [run for run in report.runs if run.cost]
    if not runs:
        return []
    header = ["run", *runs[0].cost]
    cells = [[escape(run.name), *map(escape, run.cost.values())] for run in runs]
    return [
        f"<h2>{words['cost']}</h2>",
        table(header, cells, [words["cost about"].format(device=report.device)], report.lang),
    ]


def pairs(values: dict[str, str]) -> str:
    """Names with their values."""
    lines = "".join(f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in values.items())
    return f"<dl>{lines}</dl>"


def _records(report: Report) -> list[str]:
    """What was run and how to repeat it, for each run, as one part."""
    words, translated, parts = WORDS[report.lang], said_in(report.lang), list[str]()
    for run in report.runs:
        record = run.folder.record
        about = {**record.stamp, "commit": record.git or "unknown", **record.versions}
        whole = escape(json.dumps(record.plain(), indent=1, ensure_ascii=False))
        name = f": {escape(run.name)}" if len(report.runs) > 1 else ""
        parts += [
            f"<h2>{words['what']}{name}</h2>",
            pairs({translated(name): translated(value) for name, value in about.items()}),
            f"<h2>{words['how']}{name}</h2>",
            f"<pre>{escape(run.command)}</pre>",
            f"<details><summary>{words['record']}</summary><pre>{whole}</pre></details>",
        ]
    return ["\n".join(parts)]


# --- pictures ---------------------------------------------------------------------------------------------------------


def _figures(report: Report) -> list[str]:
    words, captions = WORDS[report.lang], FIGURES[report.lang]
    if not report.figures and not report.no_figures:
        return []
    heading = f"<h2>{words['figures']}</h2>"
    if not report.figures:
        return [heading, f"<p>{escape(words['no figures'].format(reason=report.no_figures))}</p>"]
    shown = [
        f"<figure>{svg}<figcaption>{escape(caption_of(name, captions))}</figcaption></figure>"
        for name, svg in report.figures
    ]
    return [heading, f'<div class="figures">{"".join(shown)}</div>']


def caption_of(name: str, captions: Mapping[str, str]) -> str:
    """The caption of a figure, whose name may end in a protocol (cmc-sysu-all-single-shot)."""
    return next((text for kind, text in captions.items() if name == kind or name.startswith(f"{kind}-")), name)


def _failures(report: Report) -> list[str]:
    words, parts = WORDS[report.lang], list[str]()
    for run in report.runs:
        if not run.failures:
            continue
        several = len(report.runs) > 1
        heading = words["failures of"].format(name=run.name) if several else words["failures"]
        about = words["failures about"].format(protocol=run.failures_of)
        lists = "".join(
            f'<details><summary>{escape(one.title)}</summary><ol class="hits">'
            f"{''.join(map(_hit, one.pictures))}</ol></details>"
            for one in run.failures
        )
        parts += [f"<h2>{escape(heading)}</h2><p>{escape(about)}</p>", lists]
    return parts


def _hit(shown: Thumbnail) -> str:
    """A picture of a list with its lines."""
    data = base64.b64encode(shown.webp).decode()
    alt, lines = escape(", ".join(shown.lines), quote=True), "<br>".join(map(escape, shown.lines))
    return f'<li class="{shown.kind}"><img alt="{alt}" src="data:image/webp;base64,{data}">{lines}</li>'


def figure(path: Path, max_bytes: int, lang: Language = "en") -> str:
    """A picture as part of the page, as small as it is shown; its file in the run folder has the full size."""
    data, (height, width) = as_shown(path, max_bytes)
    name, text = escape(path.stem, quote=True), base64.b64encode(data).decode()
    image = f'<img alt="{name}" width="{width}" height="{height}" src="data:image/webp;base64,{text}">'
    full = WORDS[lang]["full size"].format(path="/".join(path.parts[-2:]))
    return f"<figure>{image}<figcaption>{name} ({escape(full)})</figcaption></figure>"


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
        data = webp(picture, quality)
        if len(data) <= max_bytes:
            break
    return data, (picture.height, picture.width)


def webp(picture: Image.Image, quality: int) -> bytes:
    """A picture as the bytes of a WebP file."""
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=quality)
    return file.getvalue()
