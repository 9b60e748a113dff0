"""TrainingData: from a table to the batches of an epoch.

    sampler rows (2, n) -> one gather of uint8 pixels per modality -> one copy to the device -> transforms -> Batch

Every random number is a function of (seed, stage, epoch, batch of the epoch, view) alone, so that a run that is resumed
inside an epoch, and the two halves of a batch on two processes, see the very images of an uninterrupted single process.
"""

from __future__ import annotations

import hashlib
import queue
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from vireid.data import cache
from vireid.data.cache_build import Form
from vireid.data.pseudo_infrared import PseudoInfrared, sampled_rows
from vireid.data.table import Table
from vireid.data.transforms import COCO_MIRROR, RankGenerator, inputs_of, scale_keypoints
from vireid.errors import ArgumentError, DataError
from vireid.images import GrayRule
from vireid.method import Batch, Progress, Recipe, Sampler, Transform
from vireid.system import fast_layout
from vireid.types import INFRARED, MODALITIES

RESIDENT_SHARE = 0.4  # of the device's free memory at most; the rest is for the network and its activations
PSEUDO_INFRARED = PseudoInfrared()  # of a recipe that trains on visible pictures alone
COPY_ROWS = 1024  # pictures per copy when the whole array goes to the device


def form_of(recipe: Recipe) -> Form:
    """The form in which a stage reads pictures."""
    height, width = recipe.picture_size
    return Form((int(height), int(width)), recipe.filter, GrayRule.of(recipe.thermal_range))


class TrainingData:
    """The training rows of a table as batches on a device.

    `table` holds the training rows only (its `label` is what the classifiers see). `resident` keeps all pixels on the
    device as uint8: True, False, or "auto" for where that is a GPU and they take at most 40 % of its free memory.
    `rank` of `world` processes receives its contiguous part of every view.
    """

    def __init__(
        self,
        table: Table,
        *,
        device: str | torch.device = "cpu",
        seed: int = 0,
        resident: bool | Literal["auto"] = "auto",
        rank: int = 0,
        world: int = 1,
        cache_folder: Path | None = None,
        progress: bool = True,
    ) -> None:
        if not len(table):
            raise DataError("training needs images, the table has no rows; check the split and the data folder")
        if not 0 <= rank < world:
            raise ArgumentError(f"rank counts from 0 to world - 1, got rank {rank} of world {world}")
        if resident not in (True, False, "auto"):
            raise ArgumentError(f"resident is True, False or 'auto', got {resident!r}")
        self.table, self.device, self.seed = table, torch.device(device), seed
        self.resident, self.rank, self.world = resident, rank, world
        self.cache_folder, self.progress = cache_folder, progress
        self._pixels: dict[Form, np.ndarray | Tensor] = {}  # by the form of the stage
        self._lengths: dict[tuple[int, str], list[int]] = {}  # batches of each epoch, by stage and sampler
        self._sizes: np.ndarray | None = None
        self._sampled: dict[bool, tuple[Table, np.ndarray]] = {}  # rows to draw from, by recipe.pseudo_infrared

    def batches(self, recipe: Recipe, at: Progress) -> Iterator[Batch]:
        """The batches of epoch `at.epoch` from iteration `at.iteration` on; sets `at.iterations_per_epoch`.

        A batch holds the n images of view 0, then those of view 1, and so on; row i of every view is the same person,
        and views of one modality read the same images. Beside `images`, what a transform leaves in its sample (e.g.
        `heatmaps` from a transform whose `inputs` name `keypoints`) comes as `extras` when every view has it.
        Raises DataError for rows that the sampler cannot use or that have no keypoints where a view needs them, and
        ValueError when the progress or the number of processes does not fit.
        """
        if not recipe.views:
            raise ArgumentError("the recipe has no views; give it at least View(modality, transform)")
        stage, epoch, sampler = at.stage, at.epoch, recipe.sampler
        if not isinstance(sampler, Sampler):
            raise ArgumentError(f"{type(sampler).__name__} draws no rows of pictures; give a sampler that has `epoch`")
        pseudo = recipe.pseudo_infrared
        if pseudo not in self._sampled:
            self._sampled[pseudo] = sampled_rows(self.table, pseudo)
        table = self._sampled[pseudo][0]
        rows = self._rows(sampler, table, stage, epoch)
        start = at.iteration - self._first_iteration(sampler, table, stage, epoch)
        if not 0 <= start <= len(rows):
            raise ArgumentError(
                f"iteration {at.iteration} lies outside epoch {epoch}, which starts at {at.iteration - start} and has "
                f"{len(rows)} batches; resume with the data, the sampler and the seed that the run began with"
            )
        at.iterations_per_epoch = len(rows)
        pixels = self._load(recipe)
        steps = range(start, len(rows))

        def batch(step: int) -> Batch:
            return self._batch(recipe, rows[step], pixels, f"{self.seed}/{stage}/{epoch}/{step}")

        if isinstance(pixels, Tensor) and pixels.device.type != "cpu":
            return (batch(step) for step in steps)  # the device works ahead by itself
        return _ahead(batch, steps)

    # --- rows -------------------------------------------------------------------------------------------------------

    def _rows(self, sampler: Sampler, table: Table, stage: int, epoch: int) -> list[np.ndarray]:
        """The rows (2, n) of every batch of an epoch; the draws alone, a fraction of a second."""
        digest = _digest(f"{self.seed}/{stage}/{epoch}/sampler")
        random = np.random.RandomState(np.frombuffer(digest, dtype="<u4"))
        rows = list(sampler.epoch(table, random))
        if not rows:
            raise DataError(
                f"{type(sampler).__name__} yields no batch from {len(table)} training images; "
                "set fewer sampler.pids or sampler.images"
            )
        return rows

    def _first_iteration(self, sampler: Sampler, table: Table, stage: int, epoch: int) -> int:
        """Number of batches in the epochs before this one: their lengths may differ where no `iterations` says them."""
        length = getattr(sampler, "iterations", None)
        if length is not None:
            return epoch * length(table)
        known = self._lengths.setdefault((stage, repr(sampler)), [])
        while len(known) < epoch:
            known.append(len(self._rows(sampler, table, stage, len(known))))
        return sum(known[:epoch])

    def _part(self, rows: np.ndarray) -> slice:
        """This process's part of one view."""
        if len(rows) % self.world:
            raise ArgumentError(
                f"{len(rows)} images of a view cannot be shared evenly by {self.world} processes; "
                "set sampler.pids to a multiple of the number of processes"
            )
        size = len(rows) // self.world
        return slice(self.rank * size, (self.rank + 1) * size)

    # --- pixels -----------------------------------------------------------------------------------------------------

    def _load(self, recipe: Recipe) -> np.ndarray | Tensor:
        """All pixels of a stage, (R, H, W, 3) uint8: mapped from the cache file, or on the device."""
        form = form_of(recipe)
        if form not in self._pixels:
            mapped = cache.pixels(
                self.table, form.size, folder=self.cache_folder, progress=self.progress, filter=form.filter,
                gray=form.gray,
            )  # fmt: skip
            self._pixels.clear()  # the pixels of an earlier stage would only take memory
            self._pixels[form] = self._to_device(mapped) if self._fits(mapped.nbytes) else mapped
        return self._pixels[form]

    def _fits(self, need: int) -> bool:
        if self.resident != "auto":
            return bool(self.resident)
        if self.device.type != "cuda":
            return False  # in the machine's own memory the map is as fast
        return need <= RESIDENT_SHARE * torch.cuda.mem_get_info(self.device)[0]

    def _to_device(self, mapped: np.ndarray) -> Tensor:
        whole = torch.empty(mapped.shape, dtype=torch.uint8, device=self.device)
        for start in range(0, len(mapped), COPY_ROWS):
            whole[start : start + COPY_ROWS] = torch.from_numpy(np.array(mapped[start : start + COPY_ROWS]))
        return whole

    def _gather(self, pixels: np.ndarray | Tensor, rows: np.ndarray) -> Tensor:
        """(n, 3, H, W) uint8 on the device."""
        if isinstance(pixels, Tensor):
            images = pixels[torch.from_numpy(rows).to(pixels.device)]
        else:
            images = torch.from_numpy(np.asarray(pixels)[rows])
            if self.device.type == "cuda":
                images = images.pin_memory()  # so that the copy runs beside the network
            images = images.to(self.device, non_blocking=True)
        return images.permute(0, 3, 1, 2)

    def _inputs(self, transform: Transform, rows: np.ndarray, recipe: Recipe) -> dict[str, Tensor]:
        """What a transform needs beside the images, on the device."""
        inputs: dict[str, Tensor] = {}
        for name in inputs_of(transform):
            if name not in self.table.extras:
                if name == "keypoints" and name in getattr(transform, "optional", ()):
                    inputs[name] = torch.full((len(rows), len(COCO_MIRROR), 3), torch.nan, device=self.device)
                    continue
                raise DataError(
                    f"a transform of the recipe needs `{name}`, and the table has no such column; "
                    f"give the data {name} (for keypoints: `vireid data pose`) or leave the transform out"
                )
            values = torch.from_numpy(np.ascontiguousarray(self.table.extras[name][rows])).float()
            if name == "keypoints":
                sizes = self._source_sizes(recipe)[rows]
                values = scale_keypoints(values, torch.from_numpy(sizes), recipe.picture_size)
            inputs[name] = values.to(self.device)
        return inputs

    def _source_sizes(self, recipe: Recipe) -> np.ndarray:
        """(R, 2) height and width of the pictures on disk."""
        if self._sizes is None:
            form = form_of(recipe)
            self._sizes = cache.source_sizes(
                self.table, form.size, folder=self.cache_folder, filter=form.filter, gray=form.gray
            )
        return self._sizes

    # --- batches ----------------------------------------------------------------------------------------------------

    def _batch(self, recipe: Recipe, rows: np.ndarray, pixels: np.ndarray | Tensor, key: str) -> Batch:
        part = self._part(rows[0])
        table, origin = self._sampled[recipe.pseudo_infrared]
        rows_of = {line: rows[line, part] for line in {view.modality for view in recipe.views}}
        gathered = {line: self._gather(pixels, origin[chosen]) for line, chosen in rows_of.items()}
        samples: list[dict[str, Tensor]] = []
        for index, view in enumerate(recipe.views):
            generator = RankGenerator().of_batch(_seed(f"{key}/{index}"), whole=rows.shape[1], first=part.start)
            sample = {"images": gathered[view.modality]}
            sample |= self._inputs(view.transform, origin[rows_of[view.modality]], recipe)
            if recipe.pseudo_infrared and view.modality == INFRARED:
                sample = PSEUDO_INFRARED(sample, generator)
            sample = view.transform(sample, generator)
            if sample["images"].dtype == torch.uint8:
                raise ArgumentError(
                    f"view {index} ({MODALITIES[view.modality]}) leaves uint8 pixels; add Normalize() to its transform"
                )
            samples.append(sample)
        chosen = np.concatenate([rows_of[view.modality] for view in recipe.views])
        of_picture = {name: getattr(self.table, name)[origin[chosen]] for name in ("label", "camid")}
        columns = {**of_picture, "modality": table.modality[chosen]}
        columns = {name: torch.from_numpy(column).to(self.device) for name, column in columns.items()}
        view_of = torch.arange(len(samples)).repeat_interleave(len(chosen) // len(samples)).to(self.device)
        shared = [name for name in samples[0] if all(name in sample for sample in samples)]
        joined = {name: torch.cat([sample[name] for sample in samples]) for name in shared}
        return Batch(images=fast_layout(joined.pop("images")), view=view_of, extras=joined, **columns)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _seed(key: str) -> int:
    return int.from_bytes(_digest(key)[:8], "little") >> 1  # torch takes 63 bits


def _ahead(make: Callable[[int], Batch], steps: range) -> Iterator[Batch]:
    """make(step) for every step, the next one being made in a thread of its own while the last one is used."""
    ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=1)
    closed = threading.Event()

    def offer(item: Batch | BaseException | None) -> bool:
        while not closed.is_set():
            try:
                ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def work() -> None:
        try:
            for step in steps:
                if not offer(make(step)):
                    return
            offer(None)
        except BaseException as error:  # raised again where the batches are read
            offer(error)

    thread = threading.Thread(target=work, name="vireid-batches", daemon=True)
    thread.start()
    try:
        while (item := ready.get()) is not None:
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        closed.set()
        thread.join()
