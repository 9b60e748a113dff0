"""FeatureExtractor: pictures of any kind in, L2-normalized vectors out, with a bundle alone.

A picture goes the way that it went in training: read and resized by vireid.images, with the bundle's filter. So the
vectors are those of `vireid embed`, divided by their length.
"""

from __future__ import annotations

import copy
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeGuard, cast

import numpy as np
from PIL import Image

from vireid import images
from vireid.deploy.bundle import Bundle
from vireid.deploy.infrared_detection import is_infrared
from vireid.deploy.pose_input import HEATMAPS, Poser, Seen, to_do
from vireid.errors import ArgumentError, PictureError
from vireid.images import GrayRule, resize
from vireid.own_files import Code
from vireid.system import available_cores, keep_freed_memory
from vireid.types import INFRARED, VISIBLE, Backend, ModalityOrAuto

if TYPE_CHECKING:  # OpenVINO and onnxruntime need no torch
    from torch import Tensor

Picture: TypeAlias = "images.Picture | Tensor"
MODALITIES: dict[str | int, int] = {"visible": VISIBLE, "infrared": INFRARED, VISIBLE: VISIBLE, INFRARED: INFRARED}
CHANNELS = (1, 3, 4)  # of a tensor


class FeatureExtractor:
    """Vectors (N, D) float32, L2-normalized, of pictures that show one person each.

    `bundle` is a Bundle or its folder; `backend` auto, torch, onnxruntime or openvino; `device` auto, cpu, cuda or
    cuda:N. `pose` says where the heat maps of a network that takes them come from (see deploy/pose_input.py), `gray`
    how gray pictures of more than 8 bits become 8, by default as in the training. `method` is the Python file of a
    network of your own, for the folder of a bundle.
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        backend: Backend = "auto",
        device: str = "auto",
        batch_size: int = 64,
        pose: str | None = None,
        gray: GrayRule | None = None,
        method: Code | None = None,
    ) -> None:
        if batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, got {batch_size}")
        keep_freed_memory()
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle, method)
        self.batch_size, self.gray = batch_size, gray or self.bundle.config.gray
        self._poser = None if pose is None else Poser(pose, self.bundle, device)
        self._embed = self.bundle.embedder(backend, device)

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return self.bundle.config.dim

    def with_gray(self, gray: GrayRule) -> FeatureExtractor:
        """The same extractor, network included, with another rule for gray pictures of more than 8 bits."""
        other = copy.copy(self)
        other.gray = gray
        return other

    def __call__(
        self,
        pictures: Picture | Iterable[Picture],
        modality: ModalityOrAuto | Iterable[ModalityOrAuto] = "auto",
        **inputs: np.ndarray,
    ) -> np.ndarray:
        """L2-normalized vectors, float32 (N, D), one row for each picture in order.

        A picture is a path, the bytes of a file, a PIL image, an array (see `vireid.images.read`) or a uint8 tensor
        (3, H, W); an array (N, H, W, 3), a tensor (N, 3, H, W), a list or a generator of pictures is many. `modality`
        is one word for all or one for each; "auto" decides from the picture (see deploy/infrared_detection.py). What
        the bundle's embedder takes beside pictures (`bundle.config.inputs`) is passed by name, (N, ...); with `pose`
        heat maps are drawn.
        Raises PictureError, ValueError.
        """
        parts = [vectors for vectors, _ in self.batches(pictures, modality, **inputs)]
        return np.concatenate(parts) if parts else np.zeros((0, self.dim), np.float32)

    def batches(
        self,
        pictures: Picture | Iterable[Picture],
        modality: ModalityOrAuto | Iterable[ModalityOrAuto] = "auto",
        **inputs: np.ndarray,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same in pieces: L2-normalized vectors (n, D) and the modality (n,) int64 that each was embedded as.

        At most two batches of pictures are held: one that is embedded and one that is decoded meanwhile.
        """
        config = self.bundle.config
        poser = self._poser if HEATMAPS not in inputs else None
        if set(inputs) | ({HEATMAPS} if poser else set()) != set(config.inputs):
            advice = to_do(self.bundle)
            raise ArgumentError(
                f"this embedder takes {' and '.join(('pictures', *config.inputs))}, got "
                f"{' and '.join(('pictures', *inputs))}; pass each as NAME=array with one row for each picture"
                + (f", or {advice}" if advice else "")
            )
        stream = enumerate(_with_modality(_singles(pictures), modality))
        with ThreadPoolExecutor(
            available_cores(), thread_name_prefix="decode"
        ) as pool:  # Pillow works without Python's lock

            def ahead() -> list[Future[tuple[np.ndarray, int, Seen | None]]]:
                return [
                    pool.submit(self._prepare, number, picture, kind, poser)
                    for number, (picture, kind) in islice(stream, self.batch_size)
                ]

            done, waiting = 0, ahead()
            try:
                while waiting:
                    ready = [future.result() for future in waiting]
                    waiting = ahead()
                    batch = np.ascontiguousarray(np.stack([image for image, _, _ in ready]).transpose(0, 3, 1, 2))
                    kinds = np.array([kind for _, kind, _ in ready], dtype=np.int64)
                    given = [name for name in config.inputs if name in inputs]
                    beside = _rows(inputs, given, done, len(ready), last=not waiting)
                    if poser is not None:
                        drawn = poser.maps([seen for _, _, seen in ready if seen is not None])
                        beside.insert(config.inputs.index(HEATMAPS), drawn)
                    yield _normalized(self._embed(batch, kinds, *beside), done), kinds
                    done += len(ready)
            finally:
                pool.shutdown(cancel_futures=True)

    def _prepare(
        self, number: int, picture: Picture, kind: int | None, poser: Poser | None
    ) -> tuple[np.ndarray, int, Seen | None]:
        """uint8 (H, W, 3) as in training, the modality, judged before the resize, and what the pose is found in."""
        name = os.fspath(picture) if isinstance(picture, str | os.PathLike) else f"picture {number}"
        image = images.read(_as_read(picture, name), name, gray=self.gray)
        if kind is None:
            kind = INFRARED if is_infrared(np.asarray(image)) else VISIBLE
        config = self.bundle.config
        return resize(image, config.size, config.filter), kind, None if poser is None else poser.look(image)


def _is_tensor(picture: object) -> TypeGuard[Tensor]:
    """Whether it is a tensor of torch; where torch is not imported nothing is."""
    return isinstance(picture, getattr(sys.modules.get("torch"), "Tensor", ()))


def _as_read(picture: Picture, name: str) -> images.Picture:
    """What vireid.images reads: the picture, of a tensor (C, H, W) an array (H, W, C)."""
    if not _is_tensor(picture):
        return cast(images.Picture, picture)
    if picture.ndim != 3 or picture.shape[0] not in CHANNELS:
        raise PictureError(f"{name}: a tensor is (3, H, W), got {tuple(picture.shape)}; permute it, or pass an array")
    return picture.detach().cpu().permute(1, 2, 0).numpy()


# --- many pictures ----------------------------------------------------------------------------------------------------


def _singles(pictures: Picture | Iterable[Picture]) -> Iterator[Picture]:
    """One picture after the other, whatever they came in."""
    if isinstance(pictures, str | os.PathLike | bytes | Image.Image):
        yield pictures
    elif isinstance(pictures, np.ndarray) or _is_tensor(pictures):
        many = pictures.ndim == 4
        yield from pictures if many else [pictures]
    elif isinstance(pictures, Iterable):
        yield from pictures
    else:
        raise PictureError(f"expected a picture, or a list or generator of pictures, got {type(pictures).__name__}")


def _with_modality(
    pictures: Iterator[Picture], modality: ModalityOrAuto | Iterable[ModalityOrAuto]
) -> Iterator[tuple[Picture, int | None]]:
    """Each picture with its modality, None for "auto"; ValueError where the numbers differ."""
    if isinstance(modality, str | int):
        kind = _kind(modality)
        yield from ((picture, kind) for picture in pictures)
        return
    words = iter(modality)
    nothing = object()
    for number, picture in enumerate(pictures):
        word = next(words, nothing)
        if word is nothing:
            raise ArgumentError(
                f"modality has {number} entries and there are more pictures; give one for each, or one word"
            )
        yield picture, _kind(word)
    if next(words, nothing) is not nothing:
        raise ArgumentError("modality has more entries than there are pictures; give one for each, or one word for all")


def _kind(word: object) -> int | None:
    if isinstance(word, str) and word == "auto":
        return None
    if isinstance(word, str | int | np.integer) and (kind := MODALITIES.get(word)) is not None:  # type: ignore[arg-type]
        return kind
    raise ArgumentError(f'modality is "visible", "infrared" or "auto", got {word!r}')


def _rows(inputs: dict[str, np.ndarray], names: Sequence[str], start: int, count: int, last: bool) -> list[np.ndarray]:
    """The rows of the declared inputs that belong to a batch."""
    for name in names:
        have = len(inputs[name])
        if have < start + count or (last and have > start + count):
            raise ArgumentError(
                f"{name} has {have} rows, the pictures are {'' if last else 'more than '}{start + count}"
            )
    return [np.ascontiguousarray(inputs[name][start : start + count], dtype=np.float32) for name in names]


def _normalized(vectors: np.ndarray, start: int) -> np.ndarray:
    norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    bad = np.flatnonzero(~(np.isfinite(norms[:, 0]) & (norms[:, 0] > 0)))
    if len(bad):
        raise ArgumentError(f"the vector of picture {start + bad[0]} is zero or not finite; the weights are damaged")
    return (vectors / norms).astype(np.float32, copy=False)
