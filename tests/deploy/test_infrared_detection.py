"""Infrared or visible: gray pictures, what codecs and noise do to them, and the synthetic set itself."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vireid.data import datasets
from vireid.deploy.infrared_detection import BAR, chroma, is_infrared, judge
from vireid.synthetic.make import make
from vireid.types import INFRARED


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    with Image.open(file) as image:
        return np.array(image.convert("RGB"))


def gray(seed: int = 0) -> np.ndarray:
    levels = np.random.RandomState(seed).randint(30, 220, (8, 4))
    return np.repeat(np.kron(levels, np.ones((24, 24)))[:, :, None], 3, 2).astype(np.uint8)


def test_gray_pictures_with_noise_and_codec_are_infrared() -> None:
    random = np.random.RandomState(1)
    for seed in range(5):
        picture = gray(seed)
        assert chroma(picture) == 0 and judge(picture).confidence == 1
        noisy = np.clip(picture + random.normal(0, 6, picture.shape), 0, 255).astype(np.uint8)
        assert (noisy.max(2) - noisy.min(2)).mean() > BAR  # its pixels are colored
        for quality in (40, 75, 95):
            assert is_infrared(jpeg(noisy, quality)), (seed, quality, chroma(jpeg(noisy, quality)))


def test_little_color_is_enough_to_be_visible() -> None:
    picture = gray()
    picture[96:120, :, 0] = np.minimum(picture[96:120, :, 0] + 20, 255)  # one of eight stripes: a belt
    found = judge(picture)
    assert not found.infrared and found.confidence > 0.9 and found.chroma == pytest.approx(20, abs=1)
    picture = gray()
    picture[:8, :24] = (255, 0, 0)  # 1 of 96 cells: a time stamp in the corner
    assert is_infrared(picture)


def test_confidence_is_a_half_at_the_bar_and_grows_on_both_sides() -> None:
    flat = [judge(np.full((32, 16, 3), (100 + c, 100, 100), np.uint8)) for c in range(0, 12)]
    assert [f.infrared for f in flat] == [c < BAR for c in range(0, 12)]
    confidence = [f.confidence for f in flat]
    assert confidence[:6] == sorted(confidence[:6], reverse=True) and confidence[6:] == sorted(confidence[6:])
    assert 0.5 <= min(confidence) < 0.65 and max(confidence) == 1


def test_sizes_and_refusals() -> None:
    assert is_infrared(np.zeros((1, 1, 3), np.uint8)) and is_infrared(np.full((3, 500, 3), 9, np.uint8))
    for wrong in (np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((0, 4, 3), np.uint8)):
        with pytest.raises(ValueError, match=r"uint8 \(H, W, 3\)"):
            is_infrared(wrong)


def test_synthetic_pictures(tmp_path: Path) -> None:
    table = datasets.load(f"sysu={make(tmp_path / 'set', 'sysu', people=6, images_per_camera=1, size=(64, 32))}")
    assert len(table) > 20
    for row in range(len(table)):
        with Image.open(table.full_path(row)) as image:
            assert is_infrared(np.array(image.convert("RGB"))) == (table.modality[row] == INFRARED), table.path[row]
