"""Files of networks that are damaged: the file is named in one line."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from vireid.errors import WeightsError
from vireid.layers.embedder import load_embedder, save_embedder
from vireid.layers.two_stream import TwoStream


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("saved") / "embedder.safetensors"
    save_embedder(TwoStream(width=4, blocks=(1, 1, 1, 1)), path)
    return path.read_bytes()


def changed(whole: bytes, old: bytes, new: bytes) -> bytes:
    assert whole.count(old) == 1 and len(old) == len(new)
    return whole.replace(old, new)


@pytest.mark.parametrize(
    ("hurt", "told"),
    [
        (lambda data: data[: len(data) // 2], "cannot be read as safetensors"),
        (lambda data: b"", "cannot be read as safetensors"),
        (lambda data: b"\0\xff junk of some length", "cannot be read as safetensors"),
        (lambda data: changed(data, b'\\"settings\\"', b'\\"settinks\\"'), "the embedder description .* is damaged"),
        (
            lambda data: changed(data, b"two_stream.TwoStream", b"two_stream.TwoStreax"),
            "is not an Embedder of this vireid",
        ),
        (
            lambda data: changed(data, b"two_stream.TwoStream", b"saved.load_network  "),
            "is not an Embedder of this vireid",
        ),
        (lambda data: changed(data, b'\\"width\\": 4', b'\\"width\\": 8'), "does not fit the TwoStream"),
    ],
)
def test_a_damaged_file_is_named(tmp_path: Path, whole: bytes, hurt, told: str) -> None:
    path = tmp_path / "embedder.safetensors"
    path.write_bytes(hurt(whole))
    with pytest.raises(WeightsError, match=told) as caught:
        load_embedder(path)
    assert str(path) in str(caught.value)


def test_other_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"absent\.safetensors cannot be read"):
        load_embedder(tmp_path / "absent.safetensors")
    save_file({"x": torch.zeros(2)}, tmp_path / "other.safetensors")
    with pytest.raises(WeightsError, match=r"other\.safetensors has no embedder description"):
        load_embedder(tmp_path / "other.safetensors")
