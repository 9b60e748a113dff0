"""Training from visible pictures alone: the transform against a loop over pixels, batches, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from vireid.data.pipeline import TrainingData
from vireid.data.pseudo_infrared import PseudoInfrared, pseudo_infrared, with_pseudo_infrared
from vireid.data.samplers import IdentityBatches, UnpairedBatches
from vireid.data.table import Table, table_from_columns
from vireid.data.transforms import Normalize
from vireid.errors import DataError
from vireid.method import Progress, Recipe, View
from vireid.types import INFRARED, VISIBLE

SIZE = (16, 8)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """An infrared picture of person 9, then 4 people with 3 visible pictures each, whose red is 20 times their row."""
    root = tmp_path_factory.mktemp("visible")
    names = [f"{row:02d}.png" for row in range(13)]
    for row, name in enumerate(names):
        Image.new("RGB", (8, 16), (20 * row, 100, 30)).save(root / name)
    columns = {
        "path": names,
        "pid": [9, *np.repeat([3, 5, 12, 20], 3)],
        "camid": [6, *[1, 2, 3] * 4],
        "modality": [INFRARED, *[VISIBLE] * 12],
        "split": ["train"] * 13,
    }
    return table_from_columns(root, columns, "test")


def recipe(**changes: object) -> Recipe:
    views = (View(VISIBLE, Normalize()), View(INFRARED, Normalize()))
    plain = Recipe(SIZE, IdentityBatches(pids=3, images=2), views, 2, {}, lambda at: 1.0, pseudo_infrared=True)  # pyright: ignore[reportArgumentType]
    return replace(plain, **changes)


def test_pixels_are_mixed_toned_and_inverted() -> None:
    images = torch.randint(0, 256, (4, 3, 5, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([[1.0, 0, 0], [0, 0.5, 0.5], [0.2, 0.3, 0.5], [0, 0, 1]])
    exponent, inverted = torch.tensor([1.0, 2.0, 0.5, 1.0]), torch.tensor([False, False, True, True])
    found = pseudo_infrared(images, weights, exponent, inverted)
    assert found.dtype == torch.uint8 and found.shape == images.shape
    for n, c, h, w in np.ndindex(*images.shape):
        gray = sum(float(weights[n, k]) * int(images[n, k, h, w]) / 255 for k in range(3))
        tone = gray ** float(exponent[n])
        assert abs(int(found[n, c, h, w]) - 255 * (1 - tone if inverted[n] else tone)) <= 0.51


def test_every_image_has_numbers_of_its_own_and_the_ranges_hold() -> None:
    red = torch.zeros(400, 3, 1, 1, dtype=torch.uint8)
    red[:, 0] = 255
    shares = PseudoInfrared(gamma=1, invert=0)({"images": red}, torch.Generator().manual_seed(1))["images"][:, 0, 0, 0]
    assert len(shares.unique()) > 100 and abs(shares.float().mean() / 255 - 1 / 3) < 0.05
    gray = torch.full((400, 3, 1, 1), 128, dtype=torch.uint8)
    tones = PseudoInfrared(gamma=2, invert=0)({"images": gray}, torch.Generator().manual_seed(1))["images"][:, 0, 0, 0]
    lowest, highest = (255 * (128 / 255) ** e for e in (2, 0.5))
    assert lowest - 1 <= tones.min() < lowest + 10 and highest - 10 < tones.max() <= highest + 1
    white = torch.full((400, 3, 1, 1), 255, dtype=torch.uint8)
    inverted = PseudoInfrared()({"images": white}, torch.Generator().manual_seed(1))["images"][:, 0, 0, 0] == 0
    assert math.isclose(inverted.float().mean(), 0.25, abs_tol=0.07)


def test_rows_come_twice_and_infrared_ones_are_left_out(table: Table) -> None:
    doubled, origin = with_pseudo_infrared(table)
    assert origin.tolist() == [*range(1, 13), *range(1, 13)]
    assert doubled.modality.tolist() == [VISIBLE] * 12 + [INFRARED] * 12
    with pytest.raises(DataError, match="the training rows have none"):
        with_pseudo_infrared(table[:1])


def test_a_batch_has_gray_views_of_the_same_people_and_their_own_labels_and_cameras(table: Table) -> None:
    at = Progress()
    batches = list(TrainingData(table, progress=False).batches(recipe(), at))
    assert len(batches) == at.iterations_per_epoch == 12 // 6 + 1
    for batch in batches:
        assert batch.modality.tolist() == [VISIBLE] * 6 + [INFRARED] * 6
        seen, made = batch.visible, batch.infrared
        assert torch.equal(seen.label, made.label) and 2 not in batch.label  # 2 is person 9, who is infrared alone
        rows = (seen.images[:, 0, 0, 0] * 0.229 + 0.485).mul(255 / 20).round().long().numpy()
        assert seen.label.tolist() == table.label[rows].tolist() and seen.camid.tolist() == table.camid[rows].tolist()
        pixels = made.images * torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        pixels = pixels + torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
        assert torch.allclose(pixels[:, :1], pixels[:, 1:], atol=1e-5)


def test_an_epoch_is_the_same_again_and_can_be_entered_in_the_middle(table: Table) -> None:
    whole = [batch.images for batch in TrainingData(table, progress=False).batches(recipe(), Progress())]
    rest = [batch.images for batch in TrainingData(table, progress=False).batches(recipe(), Progress(iteration=1))]
    assert len(rest) == 2 and all(torch.equal(one, two) for one, two in zip(whole[1:], rest, strict=True))


def test_without_the_setting_the_error_names_it(table: Table) -> None:
    for sampler in (IdentityBatches(pids=3, images=2), UnpairedBatches(images=2, batches=1)):
        data = TrainingData(table[1:], progress=False)
        with pytest.raises(DataError, match="pseudo_infrared=true"):
            list(data.batches(recipe(pseudo_infrared=False, sampler=sampler), Progress()))


def test_a_stage_without_pictures_makes_no_views() -> None:
    with pytest.raises(ValueError, match="this stage reads none"):
        recipe(views=())
