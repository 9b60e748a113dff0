"""ONNX export beyond the methods' own test: declared inputs, empty channels, errors, nothing left behind."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vireid.layers.embedder import Embedder
from vireid.layers.pooling import GeM
from vireid.types import VISIBLE


class Small(Embedder):
    """One convolution per modality and GeM, with heat maps as a third input."""

    inputs = ("heatmaps",)

    def __init__(self) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(3, 4, 3) for _ in range(2))
        self.pool = GeM()

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        (heatmaps,) = inputs
        visible, infrared = (conv(images).relu() for conv in self.convs)
        maps = torch.where((modality == VISIBLE).view(-1, 1, 1, 1), visible, infrared)
        return {"pooled": torch.cat([self.pool(maps * 0), self.pool(maps), heatmaps.mean((2, 3))], 1)}


def test_declared_inputs_and_empty_channels(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from vireid.deploy.onnx import export_onnx

    torch.manual_seed(0)
    embedder = Small()
    path = export_onnx(embedder, (16, 8), tmp_path / "small.onnx", (torch.zeros(2, 5, 4, 2),))
    assert embedder.training  # as it was
    assert [p.name for p in tmp_path.iterdir()] == ["small.onnx"]
    session = runtime.InferenceSession(path)
    assert [given.name for given in session.get_inputs()] == ["images", "modality", "heatmaps"]
    for rows in (1, 3):
        images = torch.randint(0, 256, (rows, 3, 16, 8), dtype=torch.uint8)
        modality, heatmaps = torch.arange(rows) % 2, torch.rand(rows, 5, 4, 2)
        feed = {"images": images.numpy(), "modality": modality.numpy(), "heatmaps": heatmaps.numpy()}
        (found,) = session.run(None, feed)
        with torch.no_grad():
            np.testing.assert_allclose(found, embedder(images, modality, heatmaps), rtol=1e-4)
        np.testing.assert_allclose(found[:, :4], 1e-4, rtol=1e-4)  # GeM of an empty channel, not 0


def test_heatmaps_that_say_how_they_are_drawn_need_no_example(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    from vireid.deploy.onnx import export_onnx

    embedder = Small()
    embedder.heatmaps = {"points": 18, "sigma": 1.5, "stride": 4, "least": 0.05, "missing": "error"}
    path = export_onnx(embedder, (16, 8), tmp_path / "small.onnx")
    session = runtime.InferenceSession(path)
    assert session.get_inputs()[2].shape[1:] == [18, 4, 2]
    assert json.loads(session.get_modelmeta().custom_metadata_map["heatmaps"]) == embedder.heatmaps
    assert {entry.key for entry in onnx.load(path).metadata_props} >= {"heatmaps"}


def test_missing_example_and_missing_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vireid.deploy.onnx import export_onnx

    with pytest.raises(ValueError, match=r"also takes .*heatmaps"):
        export_onnx(Small(), (16, 8), tmp_path / "small.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match=r"pip install 'vireid\[export\]'"):
        export_onnx(Small(), (16, 8), tmp_path / "small.onnx", (torch.zeros(2, 5, 4, 2),))
    assert not list(tmp_path.iterdir())
