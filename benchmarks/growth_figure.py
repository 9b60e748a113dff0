"""Draws how search grows with rows, from the results of growth.py, for the documentation: `python growth_figure.py`.

Reads benchmarks/results/growth*.txt, one panel for each length of vectors; writes docs/pictures/growth.webp and
growth.zh.webp.
"""

from __future__ import annotations

import io
import re
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from vireid.figures.style import COLORS, DASHES, Sheet, Words, sheet
from vireid.types import Language

RESULTS = Path(__file__).parent / "results"
PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
FILES: dict[Language, str] = {"en": "growth.webp", "zh": "growth.zh.webp"}
WORDS: Words = {
    "en": {
        "rows": "rows",
        "numbers": "vectors of {} numbers",
        "p50": "median of one search, ms",
        "no filter": "vireid, no filter",
        "infrared": "vireid, infrared",
        "4 cameras, 3 days": "vireid, 4 cameras, 3 days",
        "10 days": "vireid, 10 days",
        "plain": "LanceDB, every row, no filter",
        "usearch": "usearch, in memory, no filter",
        "hnswlib": "hnswlib, in memory, no filter",
        "zvec": "zvec, no filter",
    },
    "zh": {
        "rows": "行数",
        "numbers": "{} 维向量",
        "p50": "单次检索的中位数，毫秒",
        "no filter": "vireid，无条件",
        "infrared": "vireid，红外",
        "4 cameras, 3 days": "vireid，4 个摄像头，3 天",
        "10 days": "vireid，10 天",
        "plain": "LanceDB，逐行，无条件",
        "usearch": "usearch，在内存中，无条件",
        "hnswlib": "hnswlib，在内存中，无条件",
        "zvec": "zvec，无条件",
    },
}
LINES = ("no filter", "infrared", "4 cameras, 3 days", "10 days", "plain", "usearch", "hnswlib", "zvec")
Lines = Mapping[str, list[tuple[int, float]]]  # name -> rows and milliseconds


def read() -> Mapping[int, Lines]:
    """Median milliseconds by length of vectors, line and rows."""
    found: dict[int, dict[str, list[tuple[int, float]]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(RESULTS.glob("growth*.txt")):
        head = r"^([\d,]+) rows of (\d+) numbers: .*\n((?:  .*\n)*)"
        for rows, dim, part in re.findall(head, path.read_text(), re.MULTILINE):
            for where, who, p50 in re.findall(r"^  (.*), (\w+) +p50 +([\d.]+)", part, re.MULTILINE):
                name = where if who == "vireid" else who
                if name in LINES:
                    found[int(dim)][name].append((int(rows.replace(",", "")), float(p50)))
    return found


def draw(sheet: Sheet, panels: Mapping[int, Lines]) -> bytes:
    words = sheet.words(WORDS)
    figure = sheet.figure(9.0, 3.6)
    axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
    for ax, (dim, lines) in zip(axes, sorted(panels.items(), reverse=True), strict=True):
        for at, name in enumerate(LINES):
            if points := sorted(lines.get(name, ())):
                dashes = DASHES[0] if at < LINES.index("plain") else DASHES[2]
                ax.plot(
                    *zip(*points, strict=True),
                    marker="o",
                    ms=3.5,
                    color=COLORS[at % len(COLORS)],
                    ls=dashes,
                    label=words[name],
                )
        ax.set(xscale="log", yscale="log", xlabel=words["rows"], title=words["numbers"].format(dim))
    axes[0].set_ylabel(words["p50"])
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside right center")
    data = io.BytesIO()
    figure.savefig(data, format="png", dpi=140)
    return data.getvalue()


def main() -> None:
    panels = read()
    for lang, name in FILES.items():
        with sheet(lang) as page:
            image = Image.open(io.BytesIO(draw(page, panels))).convert("RGB")
        image.save(PICTURES / name, quality=86, method=6)
        print(f"wrote {PICTURES / name}")


if __name__ == "__main__":
    main()
