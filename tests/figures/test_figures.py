"""Figures: what they show, in both languages, saved the same way twice; the attention of a pair adds up."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from toy_protocol import PROTOCOL
from toy_tables import toy_embeddings

pytest.importorskip("matplotlib", reason="the extra `figures` is not installed")
pytest.importorskip("sklearn", reason="the extra `figures` is not installed")

from vireid.errors import RunError
from vireid.evaluation.evaluate import evaluate
from vireid.evaluation.pairs import Pairs
from vireid.evaluation.results import Results
from vireid.figures import style
from vireid.figures.camera_matrix import camera_heatmap
from vireid.figures.cmc import cmc
from vireid.figures.error_rates import error_rates, rates, rates_at
from vireid.figures.histograms import histograms
from vireid.figures.pair_attention import explain_pair
from vireid.figures.projection import projection
from vireid.figures.samples import sample_sheets
from vireid.figures.training_curves import training_curves
from vireid.layers.cmtr import ModalityTransformer
from vireid.layers.embedder import Embedder

EMBEDDINGS = toy_embeddings(noise=1.0)
DRAWN: dict[str, Callable[..., Any]] = {
    "cmc": lambda **words: cmc(evaluate(EMBEDDINGS, PROTOCOL), **words),
    "histograms": lambda **words: histograms(EMBEDDINGS, {"visible/infrared": 0.5}, **words),
    "cameras": lambda **words: camera_heatmap(EMBEDDINGS, **words),
    "error-rates": lambda **words: error_rates(EMBEDDINGS, {"visible/infrared": 0.5}, **words),
    "projection": lambda **words: projection(EMBEDDINGS, people=4, **words),
}


def texts(figure: Any) -> list[str]:
    """Every text of a figure."""
    from matplotlib.text import Text

    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


@pytest.mark.parametrize("name", DRAWN)
def test_labels_are_in_the_language_and_the_page_takes_the_figure(name: str) -> None:
    figure = DRAWN[name]()
    assert texts(figure) and all(text.isascii() or set(text) & set("±−") for text in texts(figure))
    text = style.inline_svg(figure, "one", 'a "label"')
    root = ElementTree.fromstring(text)
    assert root.attrib["role"] == "img" and root.attrib["aria-label"] == 'a "label"'
    ids = [element.attrib["id"] for element in root.iter() if "id" in element.attrib]
    assert len(ids) == len(set(ids)) and all(one.startswith("one-") for one in ids)
    assert "var(--ink)" in text and style.INK not in text and "<text" in text


def test_chinese_words_need_a_font_and_otherwise_are_english(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(style, "chinese_file", lambda: None)
    with caplog.at_level(logging.WARNING, "vireid"):
        assert "similarity" in texts(DRAWN["histograms"](lang="zh"))
    assert "no Chinese font" in caplog.text
    latin = Path(str(__import__("matplotlib").get_data_path())) / "fonts/ttf/DejaVuSans.ttf"
    monkeypatch.setattr(style, "chinese_file", lambda: latin)
    assert "相似度" in texts(DRAWN["histograms"](lang="zh"))
    with pytest.raises(ValueError, match="English"):
        DRAWN["histograms"](lang="fr")


def test_files_of_one_figure_are_equal(tmp_path: Path) -> None:
    files = [style.save(DRAWN["histograms"](), f"{tmp_path}/{name}/figure", ("png", "svg", "pdf")) for name in "ab"]
    assert [file.name for file in files[0]] == ["figure.png", "figure.svg", "figure.pdf"]
    assert [a.read_bytes() == b.read_bytes() for a, b in zip(*files, strict=True)] == [True] * 3


def test_cmc_draws_the_mean_of_every_line() -> None:
    results = evaluate(EMBEDDINGS.stamped(name="a"), PROTOCOL) + evaluate(
        toy_embeddings(noise=3.0).stamped(name="b"), PROTOCOL
    )
    lines = cmc(results).axes[0].get_lines()
    for line, name in zip(lines, ("a", "b"), strict=True):
        own = np.mean([row.metrics.cmc for row in results.rows if row.stamp["name"] == name], axis=0)
        np.testing.assert_allclose(np.asarray(line.get_ydata()), 100 * own)
        assert str(line.get_label()) == f"{name}  {100 * own[0]:.1f}"
    with pytest.raises(ValueError, match="no results under p; there are those under toy"):
        cmc(results, "p")
    with pytest.raises(ValueError, match="no results"):
        cmc(Results(()))


def test_error_rates_are_counts_and_end_at_30_false_matches() -> None:
    random = np.random.default_rng(0)
    values = Pairs(random.normal(1, 1, 500).astype(np.float32), random.normal(-1, 1, 2000).astype(np.float32))
    false_match, missed = rates(values)
    assert false_match[0] == 30 / 2000 and false_match[-1] == 1 and (np.diff(false_match) > 0).all()
    threshold = np.sort(values.other)[-30]
    assert missed[0] == np.mean(values.same < threshold) and (np.diff(missed) <= 0).all()
    assert rates_at(values, float(threshold)) == (false_match[0], missed[0])


def test_training_curves_and_sample_sheets_are_those_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no training curves"):
        training_curves(tmp_path)
    with pytest.raises(RunError, match="no sample sheets"):
        sample_sheets(tmp_path)
    lines = [
        {"event": "epoch", "stage": s, "epoch": e, "losses": {"id": 3.0 - e}, "lr": {"head": 0.1}, "watch": {}}
        for s, e in ((0, 0), (0, 1), (1, 0))
    ]
    text = "\n".join(json.dumps(line) for line in [{"event": "step"}, *lines])
    (tmp_path / "log.jsonl").write_text(text)
    losses, rates_panel = training_curves(tmp_path).axes
    assert np.asarray(losses.get_lines()[0].get_ydata()).tolist() == [3.0, 2.0, 3.0]
    assert len(losses.get_lines()) == 2 and rates_panel.get_yscale() == "log"  # a line where a stage ends
    (tmp_path / "samples").mkdir()
    for epoch in range(12):
        Image.new("RGB", (40, 20), (epoch, 0, 0)).save(tmp_path / f"samples/0-{epoch:03}.png")
    shown = sample_sheets(tmp_path).axes
    assert [int(np.asarray(axes.get_images()[0].get_array())[0, 0, 0]) for axes in shown] == [0, 4, 7, 11]


class Averaged(Embedder):
    """One convolution whose maps are averaged: the share of every place in the similarity is known."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 5, 8, 8)

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        return {"pooled": self.conv(images).mean(dim=(2, 3))}


def test_places_share_the_similarity_out_among_themselves() -> None:
    torch.manual_seed(0)
    embedder, images = Averaged().eval(), torch.randint(0, 256, (2, 3, 32, 24), dtype=torch.uint8)
    explained = explain_pair(embedder, images, torch.tensor([0, 1]))
    with torch.no_grad():
        maps = embedder.conv(embedder.normalize(images))
        unit = torch.nn.functional.normalize(maps.mean(dim=(2, 3)), dim=1)
        shares = [torch.einsum("chw,c->hw", maps[i], unit[1 - i]) / maps[i].mean(dim=(1, 2)).norm() for i in (0, 1)]
    assert explained.similarity == pytest.approx(float(unit[0] @ unit[1]), abs=1e-5)
    for share, relevance in zip(shares, explained.relevance, strict=True):
        assert float(share.mean()) == pytest.approx(explained.similarity, abs=1e-5)
        np.testing.assert_allclose(relevance, (share - share.min()) / (share.max() - share.min()), atol=1e-4)


def test_a_transformer_is_explained_by_its_patches() -> None:
    torch.manual_seed(0)
    embedder = ModalityTransformer(image_size=(48, 24), patch=8, stride=8, dim=16, depth=2, heads=2).eval()
    images = torch.randint(0, 256, (2, 3, 48, 24), dtype=torch.uint8)
    one, two = explain_pair(embedder, images, torch.tensor([0, 1])).relevance
    assert one.shape == two.shape == (6, 3) and one.max() == two.max() == 1 and one.min() == two.min() == 0


def test_a_network_without_places_is_refused() -> None:
    class Flat(Embedder):
        def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
            return {"pooled": images.flatten(1)}

    with pytest.raises(ValueError, match="Flat has no maps of places"):
        explain_pair(Flat(), torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1]))
