"""embed, embed_layers and the embeddings file."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from torch import nn
from toy_tables import toy_embeddings, toy_table

from vireid.data.pose.heatmaps import HeatMaps, template
from vireid.errors import DataError
from vireid.evaluation import embed as module
from vireid.evaluation.embed import Embeddings, embed, embed_layers, fuse_flip
from vireid.layers.embedder import Embedder

SIZE = (6, 4)


class Toy(Embedder):
    """Two layers, dropout to notice training mode, and a trace of the modality."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[int, ...]] = []
        self.line = nn.Sequential(nn.Flatten(), nn.Linear(3 * 6 * 4, 5), nn.Dropout(0.5))

    def layers(self, images, modality, *inputs):
        assert not torch.is_grad_enabled() and not torch.is_inference_mode_enabled()
        assert modality.dtype == torch.int64
        self.seen.append(tuple(images.shape))
        pooled = self.line(images) + 10 * modality[:, None]
        for extra in inputs:
            pooled = pooled + extra[:, None]
        return {"neck": pooled * 2, "pooled": pooled}


@pytest.fixture
def pixels(monkeypatch):
    images = np.random.default_rng(0).integers(0, 256, (10, *SIZE, 3), dtype=np.uint8)
    images.setflags(write=False)

    def fake(table, size, folder=None, progress=True, filter="lanczos", gray=None):
        assert size == SIZE and len(table) == len(images)
        return images

    monkeypatch.setattr(module.cache, "pixels", fake)
    return images


def expected(embedder, pixels, table, flip=False):
    images = torch.from_numpy(pixels.transpose(0, 3, 1, 2).copy())
    images = images.flip(3) if flip else images
    with torch.no_grad():
        return embedder(images, torch.from_numpy(table.modality))


def test_layers_of_every_row_in_order(pixels):
    torch.manual_seed(0)
    embedder, table = Toy().train(), toy_table(10)
    embedder.line[2].eval()
    found = embed_layers(embedder, table, SIZE, batch_size=4, progress=False)
    assert embedder.training and embedder.line[1].training and not embedder.line[2].training  # as before
    assert [shape[0] for shape in embedder.seen] == [4, 4, 2] and embedder.seen[0][1:] == (3, *SIZE)
    embedder.eval()
    torch.testing.assert_close(torch.from_numpy(found["neck"].vectors), expected(embedder, pixels, table))
    np.testing.assert_allclose(found["neck"].vectors, 2 * found["pooled"].vectors, rtol=1e-6)
    assert found["pooled"].stamp == {"layer": "pooled", "flip": "none", "size": "6x4 lanczos"}
    one = embed(embedder, table, SIZE, progress=False)
    np.testing.assert_allclose(one.vectors, found["neck"].vectors, rtol=1e-5)
    assert one.stamp["layer"] == "neck" and one.table is table and one.vectors.dtype == np.float32
    assert embed(embedder, table, SIZE, layer="pooled", progress=False).stamp["layer"] == "pooled"


def test_flip_averages_unit_vectors_and_is_stamped(pixels):
    embedder, table = Toy().eval(), toy_table(10)
    found = embed(embedder, table, SIZE, flip=True, batch_size=3, progress=False)
    both = fuse_flip(expected(embedder, pixels, table), expected(embedder, pixels, table, flip=True))
    torch.testing.assert_close(torch.from_numpy(found.vectors), both)
    assert found.stamp["flip"] == "averaged"


def test_recorded_flip_fusion():
    a = np.load(GOLDEN / "caj_flip_fusion.npz")
    fused = fuse_flip(torch.from_numpy(a["feat"]), torch.from_numpy(a["feat_flip"]))
    np.testing.assert_allclose(fused.numpy(), a["fused"], atol=1e-12)
    np.testing.assert_array_equal(torch.from_numpy(a["img"]).flip(3).numpy(), a["img_flip"])


def test_declared_inputs_come_from_the_table(pixels):
    embedder = Toy().eval()
    embedder.inputs = ("height",)
    with pytest.raises(ValueError, match="also takes height, but the table has no extra columns"):
        embed(embedder, toy_table(10), SIZE, progress=False)
    heights = np.arange(10, dtype=np.float32)
    found = embed(embedder, toy_table(10, height=heights), SIZE, layer="pooled", batch_size=3, progress=False)
    embedder.inputs = ()
    plain = embed(embedder, toy_table(10), SIZE, layer="pooled", progress=False)
    np.testing.assert_allclose(found.vectors - plain.vectors, np.repeat(heights[:, None], 5, 1), atol=1e-4)
    embedder.inputs = ("height",)
    with pytest.raises(ValueError, match="flip mirrors images and heat maps, but this embedder also takes height"):
        embed(embedder, toy_table(10, height=heights), SIZE, flip=True, progress=False)


class Posed(Toy):
    """Adds what its heat maps hold."""

    inputs = ("heatmaps",)

    def __init__(self, **drawn):
        super().__init__()
        self.heatmaps = {"points": 18, "sigma": 0.5, "stride": 2, "least": 0.05, "missing": "error", **drawn}

    def layers(self, images, modality, *inputs):
        (maps,) = inputs
        assert maps.shape[1:] == (18, 3, 2)
        return {"maps": maps.flatten(1), **super().layers(images, modality)}


@pytest.fixture
def keypoints(pixels, monkeypatch):
    """Random poses in source pictures of 12 x 8, twice the size that they are embedded at."""
    monkeypatch.setattr(module.cache, "source_sizes", lambda *table, **form: np.full((10, 2), (12, 8)))
    return np.random.default_rng(0).random((10, 17, 3), dtype=np.float32) * np.float32([7, 11, 1])


def test_heatmaps_are_drawn_at_the_embedding_size(keypoints):
    found = embed(Posed(), toy_table(10, keypoints=keypoints), SIZE, batch_size=3, progress=False)
    small = torch.from_numpy(keypoints)
    small = torch.cat([(small[..., :2] + 0.5) / 2 - 0.5, small[..., 2:]], -1)  # in pixels of the 6 x 4 image
    expected = HeatMaps(sigma=0.5, stride=2).draw(small, SIZE)
    np.testing.assert_allclose(found.vectors, expected.flatten(1).numpy(), rtol=1e-4, atol=1e-6)
    assert "pose" not in found.stamp


def test_flip_mirrors_heatmaps_and_their_sides(keypoints):
    embedder, table = Posed().eval(), toy_table(10, keypoints=keypoints)
    plain = embed(embedder, table, SIZE, progress=False).vectors
    maps = torch.from_numpy(plain).view(10, 18, 3, 2)
    mirrored = maps.flip(3)[:, [0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16]]
    found = embed(embedder, table, SIZE, flip=True, batch_size=4, progress=False)
    both = fuse_flip(torch.from_numpy(plain), mirrored.flatten(1))
    np.testing.assert_allclose(found.vectors, both.numpy(), rtol=1e-5, atol=1e-6)
    assert not np.allclose(found.vectors, fuse_flip(*[torch.from_numpy(plain)] * 2).numpy(), atol=1e-3)


def test_unknown_poses_stop_or_are_stamped(keypoints):
    keypoints[[2, 5]] = np.nan
    table = toy_table(10, keypoints=keypoints)
    with pytest.raises(DataError, match="2 of 10 pictures have none"):
        embed(Posed(), table, SIZE, progress=False)
    with pytest.raises(DataError, match=r"no keypoints\.npz in"):
        embed(Posed(), toy_table(10), SIZE, progress=False)
    found = embed(Posed(missing="zeros"), table, SIZE, progress=False)
    assert found.stamp["pose"] == "zeros for 2 of 10 images"
    assert not found.vectors[[2, 5]].any() and found.vectors[[0, 1, 3, 4]].any(1).all()
    body = embed(Posed(missing="template"), toy_table(10), SIZE, progress=False)
    assert body.stamp["pose"] == "template for 10 of 10 images"
    expected = HeatMaps(sigma=0.5, stride=2).draw(template(SIZE)[None], SIZE)
    np.testing.assert_allclose(body.vectors, expected.flatten(1).expand(10, -1).numpy(), rtol=1e-5)


def test_a_plain_module_serves(pixels):
    class Plain(nn.Module):
        def forward(self, images, modality):
            return images.float().mean((2, 3)) + modality[:, None]

    found = embed(Plain(), toy_table(10), SIZE, progress=False)
    assert found.vectors.shape == (10, 3) and found.stamp["layer"] == "output"
    with pytest.raises(ValueError, match="names no layers"):
        embed(Plain(), toy_table(10), SIZE, layer="neck", progress=False)


def test_bad_requests(pixels):
    with pytest.raises(ValueError, match="no layer 'nekc' in Toy; it has neck, pooled"):
        embed(Toy(), toy_table(10), SIZE, layer="nekc", progress=False)
    with pytest.raises(DataError, match="no rows"):
        embed(Toy(), toy_table(10)[:0], SIZE, progress=False)
    with pytest.raises(ValueError, match="batch_size"):
        embed(Toy(), toy_table(10), SIZE, batch_size=0, progress=False)

    class Greedy(Toy):
        def layers(self, images, modality, *inputs):
            raise torch.OutOfMemoryError("CUDA out of memory")

    greedy = Greedy().train()
    with pytest.raises(ValueError, match="too little memory for 7 images of 6x4; take a smaller batch_size"):
        embed(greedy, toy_table(10), SIZE, batch_size=7, progress=False)
    assert greedy.training


def test_file_round_trip(tmp_path):
    embeddings = toy_embeddings(20)
    table = replace(
        embeddings.table, partition="trial 3", extras={"frame": np.arange(20), "keypoints": np.zeros((20, 17, 3))}
    )
    embeddings = replace(embeddings, table=table, stamp={"layer": "neck", "name": "试验"})
    path = embeddings.save(tmp_path / "deep" / "test")
    back = Embeddings.load(path)
    np.testing.assert_array_equal(back.vectors, embeddings.vectors)
    assert back.stamp == embeddings.stamp and back.table.fingerprint == table.fingerprint
    assert (back.table.root, back.table.dataset, back.table.partition) == (table.root, "toy", "trial 3")
    assert back.table.extras["keypoints"].shape == (20, 17, 3)
    assert [p.name for p in path.parent.iterdir()] == ["test"]
    assert len(back[:5]) == 5


def test_files_that_are_no_embeddings(tmp_path):
    with pytest.raises(DataError, match="no embeddings at"):
        Embeddings.load(tmp_path / "none.npz")
    for name, content in {"text": b"vectors", "empty": b""}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match="not an embeddings file that vireid wrote"):
            Embeddings.load(tmp_path / name)
    np.savez(tmp_path / "other.npz", vectors=np.zeros(3))
    with pytest.raises(DataError, match="not an embeddings file that vireid wrote"):
        Embeddings.load(tmp_path / "other.npz")
    np.save(tmp_path / "one.npy", np.zeros((3, 3)))
    with pytest.raises(DataError, match="not an embeddings file that vireid wrote"):
        Embeddings.load(tmp_path / "one.npy")
    whole = toy_embeddings(20).save(tmp_path / "whole.npz")
    whole.write_bytes(whole.read_bytes()[:-100])
    with pytest.raises(DataError, match="not an embeddings file that vireid wrote"):
        Embeddings.load(whole)
    with pytest.raises(DataError, match="Python objects"):
        table = replace(toy_table(2), extras={"thing": np.array([{}, {}], dtype=object)})
        Embeddings(np.zeros((2, 3), np.float32), table).save(tmp_path / "object.npz")
    assert not (tmp_path / "object.npz").exists()


def test_vectors_must_fit_the_table():
    with pytest.raises(DataError, match=r"R = 10 table rows, got \(9, 3\)"):
        Embeddings(np.zeros((9, 3), np.float32), toy_table(10))
    with pytest.raises(DataError, match="float64"):
        Embeddings(np.zeros((10, 3)), toy_table(10))
