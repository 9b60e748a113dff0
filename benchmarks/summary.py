"""One table of what the other benchmarks wrote: each work, vireid, what it is compared with, ratio, machine and date.

Every figure is read from a file of benchmarks/results/. A ratio above 1 says that vireid is faster.

    python benchmarks/summary.py            writes benchmarks/results/summary.md and the table of docs/performance.md
    python benchmarks/summary.py --check    compares the ratios with those of the last commit and fails where one fell
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

RESULTS = Path(__file__).parent / "results"
PAGES = [Path(__file__).parents[1] / "docs" / name for name in ("performance.md", "performance.zh.md")]
BEGIN, END = "<!-- table -->\n", "<!-- end of the table -->"
FALLEN = 0.8  # of the ratio before, from which on --check fails: two runs on one quiet machine differ by some 10 %
COLUMNS = ("Work", "vireid", "Compared with", "Ratio", "Machine, date")


@dataclass(frozen=True)
class Row:
    work: str
    own: str
    other: str
    ratio: float


def evaluation(text: str) -> Iterator[Row]:
    pattern = r"(\d+ x \d+), .*\n  from the similarities   vireid ([\d.]+) s .*listed loop ([\d.]+) s"
    for size, own, other in re.findall(pattern, text):
        yield Row(f"evaluation, {size}", f"{own} s", f"per-query loop {other} s", float(other) / float(own))


def evaluation_peers(text: str) -> Iterator[Row]:
    line = r"^  (.*), from .*: ([\d.]+) CPU s   vireid ([\d.]+) CPU s: x([\d.]+)"
    for size, part in re.findall(r"^(\d+ x \d+), .*\n((?:  .*\n)*)", text, re.MULTILINE):
        for name, other, own, ratio in re.findall(line, part, re.MULTILINE):
            yield Row(f"evaluation, {size}, beside {name}", f"{own} CPU s", f"{name} {other} CPU s", float(ratio))


def video(text: str) -> Iterator[Row]:
    for size, part in re.findall(r"^(\d+ x \d+), .*\n((?:  .*\n)*)", text, re.MULTILINE):
        spent = dict(re.findall(r"^  (\w.*?) +([\d.]+) CPU s", part, re.MULTILINE))
        for fps in (2, 25):
            own, other = (spent[f"{name}, {fps} a second"] for name in ("indexing", "ffmpeg"))
            others = f"ffmpeg -vf fps={fps} {other} CPU s; decoder alone {spent['decoder']} CPU s"
            yield Row(f"frames of a video, {size}, {fps} a second", f"{own} CPU s", others, float(other) / float(own))


def reranking(text: str) -> Iterator[Row]:
    pattern = r"(\d+) images.*\n  time    vireid ([\d.]+) s   dense ([\d.]+) s"
    for images, own, other in re.findall(pattern, text):
        yield Row(f"k-reciprocal re-ranking, {images}", f"{own} s", f"dense {other} s", float(other) / float(own))


def nformer(text: str) -> Iterator[Row]:
    for images, own, other in re.findall(r"(\d+) images.*\n  time    lists ([\d.]+) s   dense ([\d.]+) s", text):
        yield Row(f"NFormer, {images}", f"{own} s", f"dense {other} s", float(other) / float(own))


def training(text: str) -> Iterator[Row]:
    for name, rows, last, own in re.findall(r"^(\w+) +([\d.]+) +([\d.]+) +([\d.]+) ", text, re.MULTILINE):
        best = max(float(rows), float(last))
        yield Row(f"training, {name}", f"{own} images/s", f"plain loop of torch {best}", float(own) / best)


def extraction(text: str) -> Iterator[Row]:
    for name, auto, rest in re.findall(r"^(\w.*?)[:,] .*auto takes (\w+)\n((?:  .*\n)*)", text, re.MULTILINE):
        speeds = dict(re.findall(r"(\w+) +([\d.]+) \(", next(re.finditer(r"files.*", rest)).group()))
        own, torch = float(speeds[auto]), float(speeds["torch"])
        yield Row(f"embedding files, {name}", f"{own:.1f} images/s ({auto})", f"torch {torch:.1f}", own / torch)


def gallery(text: str) -> Iterator[Row]:
    for rows, part in re.findall(r"^([\d,]+) rows: .*\n((?:  .*\n)*)", text, re.MULTILINE):
        for name, lines in re.findall(r"^  (.*): [\d,]+ rows pass.*\n((?:    .*\n)*)", part, re.MULTILINE):
            found = {
                word: (float(p50), p99, right)
                for word, p50, p99, right in re.findall(
                    r"(\w+) +p50 +([\d.]+) +p99 +([\d.]+) ms +recall ([\d.]+)", lines
                )
            }
            own, without, plain = found["vireid"], found["without"], found["plain"]
            yield Row(
                f"search in {rows}, {name}",
                f"p50 {own[0]} ms, p99 {own[1]} ms, recall {own[2]}",
                f"without faiss {without[0]} ms; plain LanceDB {plain[0]} ms, recall {plain[2]}; "
                f"exact scan in memory {found['exact'][0]} ms",
                without[0] / own[0],
            )


def growth(text: str) -> Iterator[Row]:
    line = r"^  (.*), (\w+) +p50 +([\d.]+) +p99 +([\d.]+) ms +recall ([\d.]+)"
    for rows, dim, part in re.findall(r"^([\d,]+) rows of (\d+) numbers: .*\n((?:  .*\n)*)", text, re.MULTILINE):
        found = re.findall(line, part, re.MULTILINE)
        own = next(each for each in found if each[1] == "vireid")
        for name, other, p50, p99, right in found:
            if other != "vireid":
                yield Row(
                    f"search in {rows} of {dim} numbers, {name}, beside {other}",
                    f"p50 {own[2]} ms, p99 {own[3]} ms, recall {own[4]}",
                    f"{other} p50 {p50} ms, p99 {p99} ms, recall {right}",
                    float(p50) / float(own[2]),
                )


def startup(text: str) -> Iterator[Row]:
    spent = {name: float(cpu) for name, cpu in re.findall(r"^(\w+) +[\d.]+ s +([\d.]+) CPU s", text, re.MULTILINE)}
    for name, work in (("help", "vireid --help"), ("completion", "completion"), ("search", "cold vireid search")):
        other = "imports" if name == "search" else "torch"
        about = {"imports": "imports of LanceDB, OpenVINO and faiss alone", "torch": "import of torch alone"}[other]
        yield Row(work, f"{spent[name]} CPU s", f"{about} {spent[other]} CPU s", spent[other] / spent[name])


SOURCES: dict[str, Callable[[str], Iterator[Row]]] = {
    "gallery.txt": gallery,
    "growth.txt": growth,
    "growth_128.txt": growth,
    "extraction.txt": extraction,
    "evaluation.txt": evaluation,
    "evaluation_peers.txt": evaluation_peers,
    "video.txt": video,
    "reranking.txt": reranking,
    "nformer.txt": nformer,
    "training.txt": training,
    "startup.txt": startup,
}


def machine(text: str) -> str:
    """Processor, cores, load and date from the head of a result."""
    head = text.partition("\n")[0]
    date, processor, cores = head.split(", ")[:3]
    load = re.search(r"load [\d.]+", head)
    return ", ".join([processor, cores, *([load.group()] if load else []), date])


def table() -> str:
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    for name, rows in SOURCES.items():
        if (RESULTS / name).exists():
            text = (RESULTS / name).read_text()
            lines += [
                f"| {row.work} | {row.own} | {row.other} | {row.ratio:.1f} | {machine(text)} |" for row in rows(text)
            ]
    return "\n".join([*lines, ""])


def fallen() -> list[str]:
    """Ratios that are lower than FALLEN times that of the last commit; ratios of one run, never seconds."""
    worse = []
    for name, rows in SOURCES.items():
        words = ["git", "show", f"HEAD:benchmarks/results/{name}"]
        before = subprocess.run(words, capture_output=True, text=True, cwd=RESULTS).stdout
        if before and (RESULTS / name).exists():
            known = {row.work: row.ratio for row in rows(before)}
            worse += [
                f"{row.work}: {row.ratio:.2f}, before {known[row.work]:.2f}"
                for row in rows((RESULTS / name).read_text())
                if row.work in known and row.ratio < FALLEN * known[row.work]
            ]
    return worse


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="compare with the last commit, write nothing")
    if parser.parse_args().check:
        sys.exit("\n".join(worse) if (worse := fallen()) else 0)
    made = table()
    (RESULTS / "summary.md").write_text(made)
    for page in PAGES:
        before, _, rest = page.read_text().partition(BEGIN)
        page.write_text(before + BEGIN + "\n" + made + "\n" + END + rest.partition(END)[2])


if __name__ == "__main__":
    main()
