"""Names, messages, docstrings, comments and English pages are written in plain technical English, American spelling."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: a word that no text holds, what is written in its place, why
WORDS = (
    (r"\btold\b", "reported, named, given", "a message does not say by whom or to whom"),
    (r"\bwhoever\b", "a user who", "the sentence has a subject that a reader can search for"),
    (r"\bso many\b", "N, this many", "a number is named"),
    (r"\banew\b", "again, from the start", "archaic"),
    (r"\bnever were\b", "synthetic", "a figure of speech for synthetic identities"),
    (r"\bnobody of\b", "none of the people in", "not English"),
    (r"\basked\b", "requested, required, the query", "a client requests, a user searches, a picture is the query"),
    (r"\bone asks\b", "the user searches", "a user searches, a client requests"),
    (r"\bgo(?:es|ing)? on\b", "continues, resumes", "the option is --resume"),
    (r"\bwent on\b", "continued, resumed", "the option is --resume"),
    (r"(?<!there )\b(?:is|are|was|were) no (?!longer|more|less)\w", "is not a", "a denial that is easy to overlook"),
    (r"\bmost alike\b", "most similar", "the quantity is called similarity"),
    (r"\bends nothing\b", "does not stop the work", "a figure of speech"),
    (r"\bthe (?:door|guard)\b", "middleware, authentication", "a metaphor: name the part"),
    (
        r"\bbefore (?:(?:your|the|a|one|which|these|all|other|same|own|visible|infrared|different) )*cameras?\b",
        "in front of, at, passed",
        "before is a word of time",
    ),
    (r"\bone's own\b", "your own", "stiff"),
    (r"\b(?:thereby|therein|thereof|whence|whereof|wherein|whereby|hitherto|nought)\b", "by this, in it", "archaic"),
)

#: a British spelling and the American one
SPELLINGS = (
    (r"colour", "color"),
    (r"\bgrey", "gray"),
    (r"\bcentres?\b|\bcentred\b|\bcentring\b", "center"),
    (r"\b(?:centi|milli|kilo)?metres?\b", "meter"),
    (r"behaviour|neighbour|favour|honour|labour\b", "-or"),
    (
        r"(?:normal|optim|recogn|organ|initial|summar|serial|general|minim|maxim|regular|quant|random|synchron|visual|"
        r"standard|categor|character|penal|special|parametr|factor|token|discret|util|memor|vector|author|local|"
        r"real|final|capital|central|modern|symbol|equal|harmon|anonym)is(?:e[drs]?|ing|ation)\b",
        "-ize",
    ),
    (r"\banalys(?:e[ds]?|ing)\b", "analyze"),
    (r"\b(?:label|model|cancel|travel|level|signal|channel)l(?:ed|ing)\b", "one l"),
    (r"\blicence", "license"),
    (r"\bjudgement", "judgment"),
)

#: a part of a name that says nothing, and what says it
NAMES = (
    (r"(?:^|_)found(?:_|$)", "what it holds: rows, paths, layers, values"),
    (r"(?:^|_)told(?:_|$)", "what it holds: options, message"),
    (r"(?:^|_)asked(?:_|$)", "query, requested"),
    (r"(?:^|_)(?:door|guard|answers)(?:_|$)", "middleware, auth, results"),
    (r"^_?(?:most|least)(?:_|$)", "max, min"),
    (r"^say$", "logging: the command line decides what is shown"),
)

#: a file name that says nothing about what the file holds
FILES = r"(?:^|/)(?:utils?|common|helpers?|base_\w+)\.py$"

#: what files of earlier versions hold: settings of recipes and bundles, the stamp of figures
SAVED = {
    ("vireid/data/pose/heatmaps.py", "least"),
    ("vireid/layers/spot.py", "least"),
    ("vireid/evaluation/refine.py", "are no n"),
    ("vireid/server/responses.py", "least_rate"),
}

#: files whose text is NOT SWEPT yet; sweep one and take it out here
NOT_SWEPT: tuple[str, ...] = ()

MODULES = sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "vireid").rglob("*.py"))
PAGES = sorted(
    path.relative_to(ROOT).as_posix()
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").rglob("*.md"))
    if not path.name.endswith(".zh.md")
)


def texts(source: str) -> Iterator[tuple[int, str]]:
    """(line, text) of every string, docstring and comment of a module."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.lineno, node.value
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string


def names(source: str) -> Iterator[tuple[int, str]]:
    """(line, name) of everything that a module binds: variables, parameters, attributes, functions and classes."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name


def in_text(text: str) -> list[tuple[str, str]]:
    """(word, better word) of every refused word in a text."""
    rules = [*((pattern, better) for pattern, better, _ in WORDS), *SPELLINGS]
    text = re.sub(r"\s+", " ", text)
    return [(hit[0], better) for pattern, better in rules for hit in re.finditer(pattern, text, re.IGNORECASE)]


def in_names(source: str) -> list[tuple[int, str, str]]:
    """(line, name, better name) of every refused name that a module binds."""
    return [
        (line, name, better)
        for line, name in names(source)
        for pattern, better in NAMES
        if re.search(pattern, name, re.IGNORECASE)
    ]


@pytest.mark.parametrize("module", MODULES)
def test_module(module: str) -> None:
    source = (ROOT / module).read_text(encoding="utf-8")
    hits = [(line, word, better) for line, text in texts(source) for word, better in in_text(text)]
    faults = [
        f"{module}:{line}: {word!r}; write: {better}"
        for line, word, better in sorted([*hits, *in_names(source)])
        if (module, word) not in SAVED
    ]
    assert bool(faults) == (module in NOT_SWEPT), "\n".join(faults) or f"{module} is swept: take it out of NOT_SWEPT"


@pytest.mark.parametrize("page", PAGES)
def test_page(page: str) -> None:
    faults = [f"{page}: {word!r}; write: {better}" for word, better in in_text((ROOT / page).read_text("utf-8"))]
    assert bool(faults) == (page in NOT_SWEPT), "\n".join(faults) or f"{page} is swept: take it out of NOT_SWEPT"


def test_file_names() -> None:
    assert not [module for module in MODULES if re.search(FILES, module)]
    assert re.search(FILES, "vireid/utils.py") and re.search(FILES, "vireid/data/base_table.py")


@pytest.mark.parametrize(
    "text",
    [
        "A picture that cannot be read is told, and ends nothing", "whoever is pictured", "one for so many rows",
        "drawn anew", "800 people who never were", "nobody of this archive", "off unless asked for",
        "A training goes on from its last epoch", "x is no gallery but holds other files", "they are no metric",
        "the door of the server", "a colour camera", "a grey picture", "the centre of a box", "12 metres away",
        "Normalise the vectors", "labelled pictures",
        "people before your own cameras", "a file of one's own", "told\n  by\n  name",
    ],
)  # fmt: skip
def test_refused_text(text: str) -> None:
    assert in_text(text)


@pytest.mark.parametrize(
    "text",
    [
        "there is no gallery at PATH", "it is no longer there", "is no more than 5", "a precise exercise, or raise",
        "The unreadable images are reported and skipped.", "the center of a color picture in gray",
        "parameters of the model",
    ],
)  # fmt: skip
def test_accepted_text(text: str) -> None:
    assert not in_text(text)


@pytest.mark.parametrize(
    "source",
    [
        "found = 1", "for found_in in x: pass", "def told(): pass", "def f(asked): pass", "self.answers = 1",
        "MOST_ROWS = 5", "def f(*, say=print): pass", "class Guard: pass", "x = lambda least: least",
    ],
)  # fmt: skip
def test_refused_name(source: str) -> None:
    assert in_names(source)


def test_accepted_name() -> None:
    assert not in_names("max_rows, at_least_float32, guarded = counts.most_common(3)")
