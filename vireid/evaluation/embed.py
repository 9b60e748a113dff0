"""Embeddings: the raw vectors of every row of a table, how they are made and how they are kept.

`flip` is the fusion that CAJ's test script offers (Ye et al., Channel Augmented Joint Learning for Visible-Infrared
Recognition, ICCV 2021): the sum of v / |v| and v' / |v'|, L2-normalized, with v' the vector of the mirrored image. It
changes the figures, so it is off by default and stands in the stamp.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import BaseModel
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.functional import normalize

from vireid.arrays_file import DAMAGE, read_arrays
from vireid.data import cache
from vireid.data.pose.heatmaps import POINTS, HeatMaps, unknown_poses
from vireid.data.table import COLUMNS, Table
from vireid.data.transforms import flip as mirror
from vireid.data.transforms import scale_keypoints
from vireid.errors import ArgumentError, DataError
from vireid.images import GrayRule
from vireid.json_file import parsed
from vireid.layers.embedder import Embedder
from vireid.system import keep_freed_memory, replacing
from vireid.types import Deployment, ResizeFilter, Similarity, Size

FORMAT = "vireid embeddings 1"


class _Stored(BaseModel):
    """What a file says beside its arrays."""

    root: str
    dataset: str
    partition: str
    stamp: dict[str, str]
    similarity: Similarity = "cosine"


BATCH = 64


@dataclass(frozen=True)
class Embeddings:
    """`vectors` (R, D) float32, not L2-normalized, one for each row of `table`; `stamp` says how they came about.

    `similarity` is the one by which the embedder's own system compares them.
    """

    vectors: np.ndarray
    table: Table
    stamp: dict[str, str] = field(default_factory=dict)
    similarity: Similarity = "cosine"

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.table):
            raise DataError(f"vectors must be (R, D) with R = {len(self.table)} table rows, got {self.vectors.shape}")
        if self.vectors.dtype != np.float32:
            raise DataError(f"vectors must be float32, got {self.vectors.dtype}; convert them with .astype(np.float32)")

    def __len__(self) -> int:
        return len(self.vectors)

    def __getitem__(self, rows: np.ndarray | slice | list[int]) -> Embeddings:
        """The same embeddings with only these rows."""
        return replace(self, vectors=self.vectors[rows], table=self.table[rows])

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
            "similarity": self.similarity,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as partial, partial.open("wb") as file:
            np.savez(file, vectors=self.vectors, about=np.array(json.dumps(about)), **columns)
        return path

    @staticmethod
    def stamp_of(path: Path) -> dict[str, str]:
        """The stamp in a file that `save` wrote, without reading its vectors; nothing for another file."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                return dict(parsed(str(file["about"]))["stamp"])
        except DAMAGE:  # `load` says what is wrong
            return {}

    @staticmethod
    def load(path: Path | str) -> Embeddings:
        """Read what `save` wrote; nothing in the file is executed. DataError for any other file."""
        path = Path(path)
        if not path.is_file():
            raise DataError(f"no embeddings at {path}; write them with `vireid embed` or Embeddings.save")
        try:
            arrays = read_arrays(path)
            about = parsed(str(arrays.pop("about")))
            written = about["format"]
        except (ValueError, KeyError, TypeError) as error:
            raise _foreign(path, error) from error
        if written != FORMAT:
            raise DataError(f"{path} is in format {written!r}, expected {FORMAT!r}; embed the images again")
        try:
            said = _Stored.model_validate(about)
            columns = {name: arrays.pop(name) for name in COLUMNS}
            vectors = arrays.pop("vectors")
            for name, value in columns.items():
                if value.dtype.kind != ("U" if name in ("path", "split") else "i") or value.ndim != 1:
                    raise ValueError(f"its column `{name}` has the shape {value.shape} and the kind {value.dtype}")
            of: dict[str, Any] = {"dataset": said.dataset, "partition": said.partition, **columns}
            extras = {name.removeprefix("extra:"): value for name, value in arrays.items()}
            table = Table(Path(said.root), extras=extras, **of)
            return Embeddings(vectors, table, said.stamp, said.similarity)
        except (ValueError, KeyError, TypeError) as error:  # DataError and pydantic's are ValueErrors
            raise _foreign(path, error) from error


def _foreign(path: Path, error: Exception) -> DataError:
    reason = " ".join(str(error).split())[:300]
    return DataError(f"{path} is not an embeddings file that vireid wrote ({reason}); embed again")


def fuse_flip(vectors: Tensor, flipped: Tensor) -> Tensor:
    """One unit vector (N, D) from those of images (N, D) and of their mirror images (N, D), each having the same say.

    >>> fuse_flip(torch.tensor([[2.0, 0.0]]), torch.tensor([[0.0, 3.0]]))
    tensor([[0.7071, 0.7071]])
    """
    return normalize(normalize(vectors, dim=1) + normalize(flipped, dim=1), dim=1)


@dataclass(frozen=True)
class EmbedOptions:
    """How pictures are embedded: `flip` averages with the mirror image, `cache_folder` is that of the pixel cache.

    `gray` is the rule for gray values of more than 8 bits, by default the one that the embedder was saved with.
    """

    flip: bool = False
    batch_size: int = BATCH
    device: str | torch.device | None = None
    cache_folder: Path | None = None
    progress: bool = True
    gray: GrayRule | None = None

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, got {self.batch_size}")


def embed(
    embedder: nn.Module,
    table: Table,
    size: Size | None = None,
    *,
    filter: ResizeFilter | None = None,
    layer: str | None = None,
    **options: Any,
) -> Embeddings:
    """Embed every image of the table; `layer` None takes what the embedder deploys.

    `size` (height, width) and `filter` are by default those that the embedder was saved with. `options` are the fields
    of EmbedOptions; `device` None keeps the embedder where it is. What the embedder declares in `inputs` comes from the
    table's columns; `heatmaps` are drawn from `keypoints`, and mirrored by `flip` too. Raises ArgumentError for an
    unknown layer, a size that is not known, a column that the table lacks (DataError for poses), and a batch too large
    for the device.
    """
    use = deployment_of(embedder, size, filter)
    return next(iter(_run(embedder, table, use, layer, EmbedOptions(**options)).values()))


def embed_layers(
    embedder: nn.Module,
    table: Table,
    size: Size | None = None,
    *,
    filter: ResizeFilter | None = None,
    **options: Any,
) -> dict[str, Embeddings]:
    """Embeddings of every layer by name from one pass over the images; arguments and errors as `embed`."""
    return _run(embedder, table, deployment_of(embedder, size, filter), "all", EmbedOptions(**options))


def deployment_of(embedder: nn.Module, size: Size | None, filter: ResizeFilter | None) -> Deployment:
    """How pictures are prepared: as given, else as the embedder's file says; ArgumentError where neither says it."""
    own = embedder.deployment if isinstance(embedder, Embedder) else None
    if own is None:
        if size is None:
            raise ArgumentError(
                "the size of this embedder's pictures is not known: its file does not say it, or it was not loaded "
                "from one. Give size=(height, width), and the filter if it is not lanczos"
            )
        return Deployment(size, filter or "lanczos")
    return replace(own, size=size or own.size, filter=filter or own.filter)


def _run(
    embedder: nn.Module, table: Table, use: Deployment, layer: str | None, options: EmbedOptions
) -> dict[str, Embeddings]:
    if len(table) == 0:
        raise DataError("the table has no rows to embed; check the split")
    keep_freed_memory()
    maps, poses = _heatmaps(embedder, table)
    inputs = _inputs(embedder, table, drawn=maps is not None)
    if options.flip and inputs:
        raise ArgumentError(
            f"flip mirrors images and heat maps, but this embedder also takes {', '.join(inputs)}; leave flip out"
        )
    first = next(chain(embedder.parameters(), embedder.buffers()), torch.empty(0))
    device = torch.device(options.device) if options.device is not None else first.device
    training = {module: module.training for module in embedder.modules()}
    embedder.to(device).eval()
    folder, gray = options.cache_folder, options.gray or GrayRule.of(use.thermal_range)
    try:
        # Not inference_mode: refining methods train on these vectors.
        with torch.no_grad():
            pixels = cache.pixels(
                table, use.size, folder=folder, progress=options.progress, filter=use.filter, gray=gray
            )
            if maps is not None:
                inputs["heatmaps"] = _points(table, maps, use.size, folder, use.filter, gray)
            ordered = {name: inputs[name] for name in getattr(embedder, "inputs", ())}
            samples = _samples(table, pixels, ordered, maps, (use.size, device), options)
            vectors = _vectors(embedder, samples, len(table), layer, options.flip)
    except torch.OutOfMemoryError as error:
        height, width = use.size
        raise ArgumentError(
            f"{device} has too little memory for {options.batch_size} images of {height}x{width}; take a smaller "
            "batch_size"
        ) from error
    finally:
        for module, was_training in training.items():
            module.training = was_training
    stamp = {"flip": "averaged" if options.flip else "none", "size": f"{use.size[0]}x{use.size[1]} {use.filter}"}
    stamp |= {"pose": poses} if poses else {}
    stamp |= {"gray": table.gray_words(gray)} if gray.ends or table.thermal_ranges is not None else {}
    return {name: Embeddings(v, table, {"layer": name, **stamp}, use.similarity) for name, v in vectors.items()}


def _samples(
    table: Table,
    pixels: np.ndarray,
    inputs: dict[str, np.ndarray],
    maps: HeatMaps | None,
    use: tuple[Size, torch.device],
    options: EmbedOptions,
) -> Iterator[tuple[slice, Tensor, dict[str, Tensor]]]:
    """Rows, modality and what the embedder takes, batch by batch, with a progress bar."""
    size, device = use
    starts, console = range(0, len(table), options.batch_size), Console(stderr=True)
    for start in track(starts, description="embed", disable=not options.progress, console=console):
        rows = slice(start, start + options.batch_size)
        images = torch.from_numpy(np.array(pixels[rows])).to(device).permute(0, 3, 1, 2).contiguous()
        sample = {"images": images}
        for name, column in inputs.items():
            value = torch.from_numpy(np.ascontiguousarray(column[rows])).to(device)
            sample[name] = maps.draw(value, size) if maps is not None and name == "heatmaps" else value
        yield rows, torch.from_numpy(table.modality[rows].astype(np.int64)).to(device), sample


def _vectors(
    embedder: nn.Module,
    samples: Iterator[tuple[slice, Tensor, dict[str, Tensor]]],
    count: int,
    layer: str | None,
    flip: bool,
) -> dict[str, np.ndarray]:
    """Vectors (count, D) by layer."""
    vectors: dict[str, np.ndarray] = {}
    for rows, modality, sample in samples:
        batch = _layers(embedder, layer, modality, sample)
        if flip:
            every = torch.ones(len(sample["images"]), dtype=torch.bool)
            mirrored = _layers(embedder, layer, modality, mirror(sample, every))
            batch = {name: fuse_flip(value, mirrored[name]) for name, value in batch.items()}
        for name, value in batch.items():
            if name not in vectors:
                vectors[name] = np.empty((count, value.shape[1]), dtype=np.float32)
            vectors[name][rows] = value.float().cpu().numpy()
    return vectors


def _heatmaps(embedder: nn.Module, table: Table) -> tuple[HeatMaps | None, str]:
    """How the embedder's heat maps are drawn, if it takes any, and what stands for poses that are not known."""
    keywords: Any = getattr(embedder, "heatmaps", None)
    if keywords is None or "heatmaps" not in getattr(embedder, "inputs", ()):
        return None, ""
    maps = HeatMaps(**keywords)
    return maps, unknown_poses(table, maps.missing)


def _points(
    table: Table, maps: HeatMaps, size: tuple[int, int], cache_folder: Path | None, filter: str, gray: GrayRule
) -> np.ndarray:
    """(R, 17, 3) keypoints in pixels of the images at `size`; the pixel cache knows the source pictures' sizes."""
    if "keypoints" not in table.extras:
        points = torch.full((len(table), POINTS, 3), torch.nan)
    else:
        sizes = torch.from_numpy(cache.source_sizes(table, size, folder=cache_folder, filter=filter, gray=gray))
        points = scale_keypoints(torch.from_numpy(table.extras["keypoints"]).float(), sizes, size)
    return maps.filled(points, size).numpy()


def _inputs(embedder: nn.Module, table: Table, drawn: bool) -> dict[str, np.ndarray]:
    """The columns that the embedder takes beyond images and modality; not heat maps where they are `drawn`."""
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
                f"{type(embedder).__name__} is not an Embedder of vireid and names no layers; leave layer out"
            )
        return {"output": embedder(images, modality, *beside)}
    vectors = embedder.layers(embedder.normalize(images), modality, *beside)
    if layer == "all":
        return vectors
    name = next(iter(vectors)) if layer is None else layer
    if name not in vectors:
        raise ArgumentError(f"no layer {name!r} in {type(embedder).__name__}; it has {', '.join(vectors)}")
    return {name: vectors[name]}
