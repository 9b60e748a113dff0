"""Projection: embeddings of some people in the plane, by t-SNE or UMAP.

Color is the person, a circle a visible and a triangle an infrared picture; a line joins the means of a person's two
modalities, so a long line is a person whose modalities lie apart. Distances between groups mean little in either
projection: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008; McInnes et al., "UMAP", 2018.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from vireid.data.table import Table
from vireid.errors import ArgumentError, MissingPackage
from vireid.evaluation.embed import Embeddings
from vireid.figures.style import COLORS, COLUMN, FAINT, INK, sheet
from vireid.types import INFRARED, VISIBLE, Language

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Kind = Literal["tsne", "umap"]
PEOPLE = 14  # twice the colors: those of the second round are framed
PICTURES = 30  # of one person, at most
MARKERS = {VISIBLE: "o", INFRARED: "^"}
WORDS = {
    "en": {
        "title": "{method} of {people} people",
        "visible": "visible",
        "infrared": "infrared",
        "means": "means of a person's two modalities",
        "note": "number: person",
    },
    "zh": {
        "title": "{people} 个行人的 {method} 投影",
        "visible": "可见光",
        "infrared": "红外",
        "means": "同一人两种模态的均值",
        "note": "数字：行人编号",
    },
}


def projection(
    embeddings: Embeddings, kind: Kind = "tsne", people: int = PEOPLE, *, seed: int = 0, lang: Language = "en"
) -> Figure:
    """The pictures of up to `people` people who are seen in both modalities, drawn at random with `seed`.

    Vectors are L2-normalized first where the embeddings are compared by their cosine. Raises ArgumentError where fewer
    than two people have both modalities, MissingPackage without scikit-learn or umap-learn.
    """
    rows = _rows(embeddings.table, people, seed)
    own = embeddings[rows]
    vectors = own.vectors
    if own.similarity == "cosine":
        vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    with sheet(lang) as page:
        places = _placed(vectors, kind, seed)
        words, grid = page.words(WORDS), page.axes(COLUMN * 0.8, 4.6)
        axes, table = grid.axes[0], own.table
        for number, pid in enumerate(table.pids.tolist()):
            color = COLORS[number % len(COLORS)]
            edge = INK if number >= len(COLORS) else "none"
            means = {}
            for modality, marker in MARKERS.items():
                mine = (table.pid == pid) & (table.modality == modality)
                axes.scatter(*places[mine].T, s=22, c=color, marker=marker, edgecolors=edge, linewidths=0.8, alpha=0.85)
                means[modality] = places[mine].mean(0)
            ends = np.array([means[VISIBLE], means[INFRARED]])
            axes.plot(*ends.T, color=color, lw=1.6, zorder=3)
            place, away = _beyond(places[(table.pid == pid) & (table.modality == VISIBLE)], ends)
            beside = {"xytext": tuple(9 * away), "textcoords": "offset points", "ha": "center", "va": "center"}
            axes.annotate(str(pid), tuple(place), color=INK, zorder=4, **beside)
        for name, modality in (("visible", VISIBLE), ("infrared", INFRARED)):
            axes.scatter([], [], c=FAINT, marker=MARKERS[modality], s=22, label=words[name])
        axes.plot([], [], color=FAINT, label=words["means"])
        method = {"tsne": "t-SNE", "umap": "UMAP"}[kind]
        axes.set_title(words["title"].format(method=method, people=len(table.pids)))
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_visible(False)
        grid.figure.legend(loc="outside lower center", ncols=3, title=words["note"], title_fontsize=8)
        return grid.figure


def _beyond(visible: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where a person's number stands, behind the visible pictures (n, 2) seen from the infrared ones, and the way."""
    way = ends[0] - ends[1]
    away = way / max(float(np.linalg.norm(way)), 1e-9)
    return ends[0] + away * float(((visible - ends[0]) @ away).max()), away


def _rows(table: Table, people: int, seed: int) -> np.ndarray:
    """Rows of the chosen people, at most PICTURES of one."""
    both = np.intersect1d(table.pid[table.modality == VISIBLE], table.pid[table.modality == INFRARED])
    if len(both) < 2 or people < 2:
        raise ArgumentError(
            f"a projection shows two people or more who are seen in both modalities, {min(len(both), people)} can be "
            "drawn; take rows of a test split"
        )
    random = np.random.default_rng(seed)
    chosen = np.sort(random.permutation(both)[:people])
    parts = []
    for pid in chosen:
        for modality in (VISIBLE, INFRARED):
            rows = np.flatnonzero((table.pid == pid) & (table.modality == modality))
            parts.append(np.sort(random.permutation(rows)[: PICTURES // 2]))
    return np.concatenate(parts)


def _placed(vectors: np.ndarray, kind: Kind, seed: int) -> np.ndarray:
    """Places (n, 2) of vectors (n, D)."""
    if kind == "umap":
        try:
            from umap import UMAP  # pyright: ignore[reportMissingImports]
        except ModuleNotFoundError as error:
            raise MissingPackage("this projection needs umap-learn: pip install umap-learn, or take tsne") from error
        return UMAP(n_neighbors=min(15, len(vectors) - 1), random_state=seed, n_jobs=1).fit_transform(vectors)
    if kind != "tsne":
        raise ArgumentError(f"a projection is tsne or umap, got {kind!r}")
    from sklearn.manifold import TSNE

    perplexity = max(2.0, min(30.0, (len(vectors) - 1) / 4))
    return TSNE(perplexity=perplexity, init="pca", random_state=seed).fit_transform(vectors)
