"""TrainingData: layout of a batch, resume inside an epoch, parts of several processes, inputs of transforms, faults."""

from __future__ import annotations

import threading
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image

from vireid.data.pipeline import TrainingData
from vireid.data.samplers import Chunks, IdentityBatches
from vireid.data.table import Table, table_from_columns
from vireid.data.transforms import Chain, ChannelExchange, ChannelJitter, Erase, Flip, Normalize, PadCrop
from vireid.errors import DataError
from vireid.method import Batch, Progress, Recipe, View
from vireid.types import INFRARED, VISIBLE

SIZE = (16, 8)
CROP = Chain(PadCrop(2), Flip(), Normalize(), Erase(0.5))
CAJL = (
    View(VISIBLE, CROP),
    View(VISIBLE, Chain(CROP, ChannelExchange())),
    View(INFRARED, Chain(CROP, ChannelJitter())),
)


@pytest.fixture(scope="module")
def table(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """6 people, 5 visible and 4 infrared pictures each, whose gray level is the number of the row."""
    root = tmp_path_factory.mktemp("data")
    pid = np.concatenate([np.repeat(np.arange(6), 5), np.repeat(np.arange(6), 4)]) * 10 + 3
    modality = np.repeat([VISIBLE, INFRARED], [30, 24])
    names = [f"{row:03d}.png" for row in range(54)]
    for row, name in enumerate(names):
        Image.fromarray(np.full((32, 16, 3), row, dtype=np.uint8)).save(root / name)
    columns = {
        "path": names,
        "pid": pid,
        "camid": modality + 1 + np.arange(54) % 2 * 2,
        "modality": modality,
        "split": ["train"] * 54,
        "keypoints": np.stack([np.full((54, 17), 7.5), np.full((54, 17), 15.5), np.ones((54, 17))], axis=-1),
    }
    return table_from_columns(root, columns, dataset="test")


def recipe_of(*views: View, sampler: object = None) -> Recipe:
    sampler = sampler or IdentityBatches(pids=4, images=3)
    return Recipe(SIZE, sampler, views or CAJL, 3, {}, lambda at: 1.0)  # pyright: ignore[reportArgumentType]


def equal(one: Batch, two: Batch) -> bool:
    names = ("images", "label", "camid", "modality", "view")
    return all(torch.equal(getattr(one, name), getattr(two, name)) for name in names)


def rows_of(batch: Batch) -> np.ndarray:
    """Rows of the table, read from the gray levels of batches made with Normalize alone."""
    return (batch.images[:, 0, 0, 0] * 0.229 + 0.485).mul(255).round().long().numpy()


def test_layout_of_a_batch(table: Table) -> None:
    views = (View(VISIBLE, Normalize()), View(VISIBLE, Normalize()), View(INFRARED, Normalize()))
    at = Progress()
    batches = list(TrainingData(table).batches(recipe_of(*views), at))
    assert len(batches) == at.iterations_per_epoch == 30 // 12 + 1
    for batch in batches:
        assert batch.images.shape == (36, 3, *SIZE) and batch.images.dtype == torch.float32
        assert batch.view.tolist() == [0] * 12 + [1] * 12 + [2] * 12
        assert batch.modality.tolist() == [VISIBLE] * 24 + [INFRARED] * 12
        parts = [batch.of_view(view) for view in range(3)]
        assert torch.equal(parts[0].label, parts[1].label) and torch.equal(parts[0].label, parts[2].label)
        assert torch.equal(parts[0].images, parts[1].images)
        rows = rows_of(batch)
        assert batch.label.tolist() == table.label[rows].tolist()
        assert batch.camid.tolist() == table.camid[rows].tolist()
        assert batch.modality.tolist() == table.modality[rows].tolist()
        assert len(batch.extras) == 0


def test_views_and_batches_and_epochs_draw_their_own_numbers(table: Table) -> None:
    data = TrainingData(table)
    same = View(VISIBLE, CROP)
    first = next(data.batches(recipe_of(same, same), Progress()))
    assert not torch.equal(first.of_view(0).images, first.of_view(1).images)
    second = next(data.batches(recipe_of(same, same), Progress(epoch=1, iteration=3)))
    assert not torch.equal(first.images, second.images)
    again = next(TrainingData(table).batches(recipe_of(same, same), Progress()))
    assert equal(first, again)
    other = next(TrainingData(table, seed=1).batches(recipe_of(same, same), Progress()))
    assert not torch.equal(first.images, other.images)
    stage = next(data.batches(recipe_of(same, same), Progress(stage=1)))
    assert not torch.equal(first.images, stage.images)


@pytest.mark.parametrize("sampler", [IdentityBatches(pids=4, images=3), Chunks(pids=2, images=2)])
def test_resume_inside_an_epoch_is_no_interruption(table: Table, sampler: IdentityBatches | Chunks) -> None:
    recipe = recipe_of(sampler=sampler)
    data, at, whole = TrainingData(table), Progress(epochs=3), []
    for at.epoch in range(3):
        for batch in data.batches(recipe, at):
            whole.append((replace(at), batch))
            at.iteration += 1
    assert whole[-1][0].iteration == len(whole) - 1
    for stopped, _ in (whole[1], whole[len(whole) // 2], whole[-1]):
        fresh = replace(stopped, iterations_per_epoch=1)
        rest = list(TrainingData(table).batches(recipe, fresh))
        expected = [
            batch for then, batch in whole if then.epoch == stopped.epoch and then.iteration >= stopped.iteration
        ]
        assert fresh.iterations_per_epoch == stopped.iterations_per_epoch
        assert len(rest) == len(expected) and all(map(equal, rest, expected))
    with pytest.raises(ValueError, match="lies outside epoch 2"):
        TrainingData(table).batches(recipe, Progress(epoch=2, iteration=1))


def test_processes_share_the_very_batch(table: Table) -> None:
    recipe = recipe_of()
    whole = list(TrainingData(table).batches(recipe, Progress()))
    for world in (2, 3):
        parts = [list(TrainingData(table, rank=rank, world=world).batches(recipe, Progress())) for rank in range(world)]
        for step, batch in enumerate(whole):
            for view in range(3):
                joined = torch.cat([part[step].of_view(view).images for part in parts])
                assert torch.equal(joined, batch.of_view(view).images)
                labels = torch.cat([part[step].of_view(view).label for part in parts])
                assert torch.equal(labels, batch.of_view(view).label)
    with pytest.raises(ValueError, match="12 images of a view cannot be shared evenly by 5"):
        next(TrainingData(table, rank=0, world=5).batches(recipe, Progress()))
    with pytest.raises(ValueError, match="rank 2 of world 2"):
        TrainingData(table, rank=2, world=2)


def test_resident_pixels_are_the_same(table: Table) -> None:
    recipe = recipe_of()
    mapped = TrainingData(table, resident=False).batches(recipe, Progress())
    resident = TrainingData(table, resident=True).batches(recipe, Progress())
    assert all(equal(one, two) for one, two in zip(mapped, resident, strict=True))
    with pytest.raises(ValueError, match="True, False or 'auto'"):
        TrainingData(table, resident="yes")  # pyright: ignore[reportArgumentType]


@dataclass(frozen=True)
class Points:
    """Turns keypoints into one number per image: a stand-in for heat maps."""

    inputs: ClassVar[tuple[str, ...]] = ("keypoints",)

    def __call__(self, sample: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        sample = dict(sample)
        sample["heatmaps"] = sample.pop("keypoints")[..., :2]
        return sample


def test_a_transform_gets_the_inputs_it_names(table: Table) -> None:
    views = tuple(View(modality, Chain(Points(), Normalize())) for modality in (VISIBLE, INFRARED))
    batch = next(TrainingData(table).batches(recipe_of(*views), Progress()))
    assert batch.extras["heatmaps"].shape == (24, 17, 2)
    # the middle of a 32 x 16 picture is the middle of the 16 x 8 one
    assert torch.equal(batch.extras["heatmaps"][0, 0], torch.tensor([3.5, 7.5]))
    one_view = next(TrainingData(table).batches(recipe_of(views[0], View(INFRARED, Normalize())), Progress()))
    assert one_view.extras == {}
    without = replace(table, extras={})
    with pytest.raises(DataError, match="needs `keypoints`"):
        next(TrainingData(without).batches(recipe_of(*views), Progress()))


@dataclass(frozen=True)
class Fails:
    def __call__(self, sample: dict[str, torch.Tensor], generator: torch.Generator) -> dict[str, torch.Tensor]:
        raise RuntimeError("on purpose")


def threads() -> int:
    return sum(thread.name == "vireid-batches" for thread in threading.enumerate())


def test_faults_of_the_thread_are_raised_and_it_ends(table: Table) -> None:
    with pytest.raises(RuntimeError, match="on purpose"):
        next(TrainingData(table).batches(recipe_of(View(VISIBLE, Fails())), Progress()))
    assert threads() == 0
    reading = TrainingData(table).batches(recipe_of(), Progress())
    next(reading)
    assert threads() == 1
    reading.close()  # pyright: ignore[reportAttributeAccessIssue]
    assert threads() == 0


def test_unusable_recipes_and_tables_are_told(table: Table, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"add Normalize\(\)"):
        next(TrainingData(table).batches(recipe_of(View(VISIBLE, Flip())), Progress()))
    with pytest.raises(ValueError, match="no views"):
        TrainingData(table).batches(replace(recipe_of(), views=()), Progress())
    with pytest.raises(DataError, match=r"sampler\.pids=6"):
        TrainingData(table).batches(recipe_of(sampler=IdentityBatches(pids=7)), Progress())
    with pytest.raises(DataError, match="yields no batch"):
        TrainingData(table).batches(recipe_of(sampler=Empty()), Progress())
    with pytest.raises(DataError, match="no rows"):
        TrainingData(table[np.array([], dtype=int)])


class Empty:
    def epoch(self, table: Table, random: np.random.RandomState):
        return iter(())
