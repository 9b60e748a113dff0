"""Embeddings: the raw vectors of every row of a table, how they are made and how they are kept.

`flip` is the fusion that CAJ's test script offers (Ye et al., Channel Augmented Joint Learning for Visible-Infrared
Recognition, ICCV 2021): the sum of v / |v| and v' / |v'|, L2-normalized, with v' the vector of the mirrored image. It
changes the figures, so it is off unless asked for and stands in the stamp.
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import normalize

from vireid.data import cache
from vireid.data.pose.heatmaps import POINTS, HeatMaps, unknown_poses
from vireid.data.table import COLUMNS, Table
from vireid.data.transforms import flip as mirror
from vireid.data.transforms import scale_keypoints
from vireid.errors import ArgumentError, DataError
from vireid.layers.embedder import Embedder
from vireid.system import replacing

FORMAT = "vireid embeddings 1"
BATCH = 64


@dataclass(frozen=True)
class Embeddings:
    """`vectors` (R, D) float32, not L2-normalized, one for each row of `table`; `stamp` says how they came about."""

    vectors: np.ndarray
    table: Table
    stamp: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.table):
            raise DataError(f"vectors must be (R, D) with R = {len(self.table)} table rows, got {self.vectors.shape}")
        if self.vectors.dtype != np.float32:
            raise DataError(f"vectors must be float32, got {self.vectors.dtype}; convert them with .astype(np.float32)")

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: np.ndarray | slice | list[int]) -> Embeddings:
        """The same embeddings with only these rows."""
        return Embeddings(self.vectors[rows], self.table[rows], self.stamp)

    def stamped(self, **stamp: str) -> Embeddings:
        """The same embeddings with these entries added to the stamp."""
        return replace(self, stamp={**self.stamp, **stamp})

    def save(self, path: Path | str) -> Path:
        """Write all as .npz, whole or not at all, and return the path; DataError for a column of Python objects."""
        path = Path(path)
        columns = {name: getattr(self.table, name) for name in COLUMNS}
        columns |= {f"extra:{name}": value for name, value in self.table.extras.items()}
        for name, value in columns.items():
            if value.dtype.hasobject:
                raise DataError(f"column `{name}` holds Python objects; give it a number or string type")
        about = {
            "format": FORMAT,
            "root": str(self.table.root),
            "dataset": self.table.dataset,
            "partition": self.table.partition,
            "stamp": self.stamp,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, vectors=self.vectors, about=np.array(json.dumps(about)), **columns)
        return path

    @staticmethod
    def load(path: Path | str) -> Embeddings:
        """Read what `save` wrote; nothing in the file is executed. DataError for any other file."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"no embeddings at {path}; write them with `vireid embed` or Embeddings.save")
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
            about = json.loads(str(arrays.pop("about")))
            if about["format"] != FORMAT:
                raise DataError(f"{path} is in format {about['format']!r}, expected {FORMAT!r}; embed the images again")
            columns = {name: arrays.pop(name) for name in COLUMNS}
            vectors = arrays.pop("vectors")
            root, dataset, partition, stamp = (about[name] for name in ("root", "dataset", "partition", "stamp"))
        except DataError:
            raise
        except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise DataError(f"{path} is no embeddings file that vireid wrote ({error}); embed again") from error
        extras = {name.removeprefix("extra:"): value for name, value in arrays.items()}
        table = Table(Path(root), extras=extras, dataset=dataset, partition=partition, **columns)
        return Embeddings(vectors, table, stamp)


def fuse_flip(vectors: Tensor, flipped: Tensor) -> Tensor:
    """One unit vector (N, D) from those of images (N, D) and of their mirror images (N, D), each having the same say.

    >>> fuse_flip(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    tensor([[0.7071, 0.7071]])
    """
    return normalize(normalize(vectors, dim=1) + normalize(flipped, dim=1), dim=1)


def embed(
    embedder: nn.Module,
    table: Table,
    size: tuple[int, int],
    *,
    flip: bool = False,
    layer: str | None = None,
    device: str | torch.device | None = None,
    batch_size: int = BATCH,
    cache_folder: Path | None = None,
    filter: str = "lanczos",
    progress: bool = True,
) -> Embeddings:
    """Embed every image of the table at `size` (height, width); `layer` None takes what the embedder deploys.

    `device` None keeps the embedder where it is; `cache_folder` and `filter` are those of the pixel cache. What the
    embedder declares in `inputs` comes from the table's columns; `heatmaps` are drawn from `keypoints`, and mirrored
    by `flip` too. Raises ValueError for an unknown layer, a column that the table lacks (DataError for poses), and a
    batch too large for the device.
    """
    layers = _run(embedder, table, size, flip, layer, device, batch_size, cache_folder, filter, progress)
    return next(iter(layers.values()))


def embed_layers(
    embedder: nn.Module,
    table: Table,
    size: tuple[int, int],
    *,
    flip: bool = False,
    device: str | torch.device | None = None,
    batch_size: int = BATCH,
    cache_folder: Path | None = None,
    filter: str = "lanczos",
    progress: bool = True,
) -> dict[str, Embeddings]:
    """Embeddings of every layer by name from one pass over the images; arguments and errors as `embed`."""
    return _run(embedder, table, size, flip, "all", device, batch_size, cache_folder, filter, progress)


def _run(
    embedder: nn.Module,
    table: Table,
    size: tuple[int, int],
    flip: bool,
    layer: str | None,
    device: str | torch.device | None,
    batch_size: int,
    cache_folder: Path | None,
    filter: str,
    progress: bool,
) -> dict[str, Embeddings]:
    if len(table) == 0:
        raise DataError("the table has no rows to embed; check the split that was asked for")
    if batch_size < 1:
        raise ArgumentError(f"batch_size must be at least 1, got {batch_size}")
    maps, poses = _heatmaps(embedder, table)
    inputs = _inputs(embedder, table, drawn=maps is not None)
    if flip and inputs:
        raise ArgumentError(
            f"flip mirrors images and heat maps, but this embedder also takes {', '.join(inputs)}; leave flip out"
        )
    first = next(chain(embedder.parameters(), embedder.buffers()), torch.empty(0))
    device = torch.device(device) if device is not None else first.device
    training = {module: module.training for module in embedder.modules()}
    embedder.to(device).eval()
    vectors: dict[str, np.ndarray] = {}
    try:
        # Not inference_mode: refining methods train on these vectors.
        with torch.no_grad():
            pixels = cache.pixels(table, size, folder=cache_folder, progress=progress, filter=filter)
            if maps is not None:
                inputs["heatmaps"] = _points(table, maps, size, cache_folder, filter)
            starts, console = range(0, len(table), batch_size), Console(stderr=True)
            for start in track(starts, description="embed", disable=not progress, console=console):
                rows = slice(start, start + batch_size)
                images = torch.from_numpy(np.array(pixels[rows])).to(device).permute(0, 3, 1, 2).contiguous()
                modality = torch.from_numpy(table.modality[rows].astype(np.int64)).to(device)
                sample = {"images": images}
                for name in getattr(embedder, "inputs", ()):
                    value = torch.from_numpy(np.ascontiguousarray(inputs[name][rows])).to(device)
                    sample[name] = maps.draw(value, size) if maps is not None and name == "heatmaps" else value
                found = _layers(embedder, layer, modality, sample)
                if flip:
                    every = torch.ones(len(images), dtype=torch.bool)
                    mirrored = _layers(embedder, layer, modality, mirror(sample, every))
                    found = {name: fuse_flip(value, mirrored[name]) for name, value in found.items()}
                for name, value in found.items():
                    if name not in vectors:
                        vectors[name] = np.empty((len(table), value.shape[1]), dtype=np.float32)
                    vectors[name][rows] = value.float().cpu().numpy()
    except torch.OutOfMemoryError as error:
        raise ArgumentError(
            f"{device} has too little memory for {batch_size} images of {size[0]}x{size[1]}; take a smaller batch_size"
        ) from error
    finally:
        for module, was_training in training.items():
            module.training = was_training
    stamp = {"flip": "averaged" if flip else "none", "size": f"{size[0]}x{size[1]} {filter}"}
    stamp |= {"pose": poses} if poses else {}
    return {name: Embeddings(value, table, {"layer": name, **stamp}) for name, value in vectors.items()}


def _heatmaps(embedder: nn.Module, table: Table) -> tuple[HeatMaps | None, str]:
    """How the embedder's heat maps are drawn, if it takes any, and what stands for poses that are not known."""
    keywords: Any = getattr(embedder, "heatmaps", None)
    if keywords is None or "heatmaps" not in getattr(embedder, "inputs", ()):
        return None, ""
    maps = HeatMaps(**keywords)
    return maps, unknown_poses(table, maps.missing)


def _points(table: Table, maps: HeatMaps, size: tuple[int, int], cache_folder: Path | None, filter: str) -> np.ndarray:
    """(R, 17, 3) keypoints in pixels of the images at `size`; the pixel cache knows the source pictures' sizes."""
    if "keypoints" not in table.extras:
        points = torch.full((len(table), POINTS, 3), torch.nan)
    else:
        sizes = torch.from_numpy(cache.source_sizes(table, size, folder=cache_folder, filter=filter))
        points = scale_keypoints(torch.from_numpy(table.extras["keypoints"]).float(), sizes, size)
    return maps.filled(points, size).numpy()


def _inputs(embedder: nn.Module, table: Table, drawn: bool) -> dict[str, np.ndarray]:
    """The columns that the embedder takes beyond images and modality; heat maps are no column when they are `drawn`."""
    names = [name for name in getattr(embedder, "inputs", ()) if not (drawn and name == "heatmaps")]
    missing = [name for name in names if name not in table.extras]
    if missing:
        raise ArgumentError(
            f"{type(embedder).__name__} also takes {', '.join(missing)}, but the table has "
            f"{', '.join(table.extras) or 'no extra columns'}; add the column to the table"
        )
    return {name: table.extras[name] for name in names}


def _layers(embedder: nn.Module, layer: str | None, modality: Tensor, sample: dict[str, Tensor]) -> dict[str, Tensor]:
    """Vectors by layer name: all, one, or (None) the one that the embedder deploys."""
    images, *beside = sample.values()
    if not isinstance(embedder, Embedder):
        if layer not in (None, "all"):
            raise ArgumentError(
                f"{type(embedder).__name__} is no Embedder of vireid and names no layers; leave layer out"
            )
        return {"output": embedder(images, modality, *beside)}
    found = embedder.layers(embedder.normalize(images), modality, *beside)
    if layer == "all":
        return found
    name = next(iter(found)) if layer is None else layer
    if name not in found:
        raise ArgumentError(f"no layer {name!r} in {type(embedder).__name__}; it has {', '.join(found)}")
    return {name: found[name]}
