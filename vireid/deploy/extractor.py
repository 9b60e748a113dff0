"""FeatureExtractor: pictures of any kind in, L2-normalized vectors out, with a bundle alone.

A picture goes the way that it went in training: RGB, Pillow's resize with the bundle's filter, uint8; only a rotation
that the camera noted (EXIF) is applied first. So the vectors are those of `vireid embed`, divided by their length.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps
from torch import Tensor

from vireid.data.cache import fit
from vireid.deploy.bundle import Bundle
from vireid.deploy.infrared_detection import is_infrared
from vireid.deploy.pose_input import HEATMAPS, Poser, Seen, to_do
from vireid.deploy.runtimes import Backend
from vireid.errors import ArgumentError, PictureError
from vireid.system import available_cores
from vireid.types import INFRARED, VISIBLE

Modality = Literal["visible", "infrared", "auto"]
Picture = str | os.PathLike | Image.Image | np.ndarray | Tensor
MODALITIES: dict[str | int, int] = {"visible": VISIBLE, "infrared": INFRARED, VISIBLE: VISIBLE, INFRARED: INFRARED}
GRAY, COLOR = (1,), (3, 4)  # channels


class FeatureExtractor:
    """Vectors (N, D) float32, L2-normalized, of pictures that show one person each.

    `bundle` is a Bundle or its folder; `backend` torch, onnxruntime or openvino; `device` auto, cpu, cuda or cuda:N.
    `pose` says where the heat maps of a network that takes them come from (see serve/posing.py).
    """

    def __init__(
        self,
        bundle: Bundle | str | Path,
        backend: Backend = "torch",
        device: str = "auto",
        batch_size: int = 64,
        pose: str | None = None,
    ) -> None:
        if batch_size < 1:
            raise ArgumentError(f"batch_size must be at least 1, got {batch_size}")
        self.bundle = bundle if isinstance(bundle, Bundle) else Bundle.open(bundle)
        self.batch_size = batch_size
        self._poser = None if pose is None else Poser(pose, self.bundle, device)
        self._embed = self.bundle.embedder(backend, device)

    @property
    def dim(self) -> int:
        """D, the length of a vector."""
        return self.bundle.config.dim

    def __call__(
        self,
        pictures: Picture | Iterable[Picture],
        modality: Modality | Iterable[Modality] = "auto",
        **inputs: np.ndarray,
    ) -> np.ndarray:
        """L2-normalized vectors, float32 (N, D), one row for each picture in order.

        A picture is a path, a PIL image, a uint8 array (H, W, 3), (H, W) or (H, W, 4), or a uint8 tensor (3, H, W);
        an array (N, H, W, 3), a tensor (N, 3, H, W), a list or a generator of pictures is many. `modality` is one word
        for all or one for each; "auto" decides from the picture (see serve/modality.py). What the bundle's embedder
        takes beside pictures (`bundle.config.inputs`) is passed by name, (N, ...); with `pose` heat maps are drawn.
        Raises PictureError, ValueError.
        """
        found = [vectors for vectors, _ in self.batches(pictures, modality, **inputs)]
        return np.concatenate(found) if found else np.zeros((0, self.dim), np.float32)

    def batches(
        self,
        pictures: Picture | Iterable[Picture],
        modality: Modality | Iterable[Modality] = "auto",
        **inputs: np.ndarray,
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """The same in pieces: L2-normalized vectors (n, D) and the modality (n,) int64 that each was embedded as.

        At most two batches of pictures are held: one that is embedded and one that is decoded meanwhile.
        """
        config = self.bundle.config
        poser = self._poser if HEATMAPS not in inputs else None
        if set(inputs) | ({HEATMAPS} if poser else set()) != set(config.inputs):
            told = to_do(self.bundle)
            raise ArgumentError(
                f"this embedder takes {' and '.join(('pictures', *config.inputs))}, got "
                f"{' and '.join(('pictures', *inputs))}; pass each as NAME=array with one row for each picture"
                + (f", or {told}" if told else "")
            )
        stream = enumerate(_with_modality(_singles(pictures), modality))
        with ThreadPoolExecutor(
            available_cores(), thread_name_prefix="decode"
        ) as pool:  # Pillow works without Python's lock

            def ahead() -> list[Future[tuple[np.ndarray, int, Seen | None]]]:
                return [
                    pool.submit(_prepare, number, picture, kind, config.size, config.filter, poser)
                    for number, (picture, kind) in islice(stream, self.batch_size)
                ]

            done, waiting = 0, ahead()
            try:
                while waiting:
                    ready = [future.result() for future in waiting]
                    waiting = ahead()
                    images = np.ascontiguousarray(np.stack([image for image, _, _ in ready]).transpose(0, 3, 1, 2))
                    kinds = np.array([kind for _, kind, _ in ready], dtype=np.int64)
                    given = [name for name in config.inputs if name in inputs]
                    beside = _rows(inputs, given, done, len(ready), last=not waiting)
                    if poser is not None:
                        drawn = poser.maps([seen for _, _, seen in ready if seen is not None])
                        beside.insert(config.inputs.index(HEATMAPS), drawn)
                    yield _normalized(self._embed(images, kinds, *beside), done), kinds
                    done += len(ready)
            finally:
                pool.shutdown(cancel_futures=True)


def read_picture(picture: Picture, name: str = "the picture") -> Image.Image:
    """A picture of any accepted kind as a PIL image with the camera's rotation applied; PictureError with its name."""
    if isinstance(picture, Image.Image):
        return _upright(picture)
    if isinstance(picture, str | os.PathLike):
        return _read_file(Path(picture), name)
    if isinstance(picture, Tensor):
        if picture.ndim != 3 or picture.shape[0] not in (*GRAY, *COLOR):
            raise PictureError(
                f"{name}: a tensor is (3, H, W), got {tuple(picture.shape)}; permute it, or pass an array"
            )
        picture = picture.detach().cpu().permute(1, 2, 0).numpy()
    if isinstance(picture, np.ndarray):
        return _from_array(picture, name)
    raise PictureError(
        f"{name}: expected a path, a PIL image, a uint8 array or a tensor, got {type(picture).__name__}; decode it"
    )


# --- one picture ------------------------------------------------------------------------------------------------------


def _prepare(
    number: int, picture: Picture, kind: int | None, size: tuple[int, int], filter: str, poser: Poser | None = None
) -> tuple[np.ndarray, int, Seen | None]:
    """uint8 (H, W, 3) as in training, the modality, judged from the picture before it is resized, and for the pose."""
    name = f"picture {number}"
    if isinstance(picture, str | os.PathLike):
        name += f" ({os.fspath(picture)})"
    try:
        image = read_picture(picture, name)
        pixels = fit(image, size, filter)
        if kind is None:
            kind = INFRARED if is_infrared(np.asarray(image.convert("RGB"))) else VISIBLE
        seen = None if poser is None else poser.look(image)
    except PictureError:
        raise
    except (OSError, ValueError) as error:
        raise PictureError(f"{name}: {error}") from error
    return pixels, kind, seen


def _upright(image: Image.Image) -> Image.Image:
    """As the camera was held; a palette with transparency as RGBA, of which Pillow would warn."""
    image = ImageOps.exif_transpose(image)
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def _read_file(path: Path, name: str) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            return _upright(image)
    except FileNotFoundError:
        raise PictureError(f"{name}: there is no such file") from None
    except Image.DecompressionBombError as error:
        raise PictureError(f"{name}: {error}; pass a crop of the person") from error
    except (OSError, ValueError, SyntaxError) as error:  # Pillow raises any of these on a damaged file
        raise PictureError(f"{name} cannot be read as a picture ({error}); copy it again or leave it out") from error


def _from_array(array: np.ndarray, name: str) -> Image.Image:
    if array.dtype != np.uint8:
        raise PictureError(
            f"{name}: expected uint8 pixels 0..255, got {array.dtype}; scale to 8 bits as your training pictures were"
        )
    if array.ndim == 3 and array.shape[2] in GRAY:
        array = array[:, :, 0]
    if not array.size or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in COLOR):
        raise PictureError(f"{name}: an array is (H, W, 3), (H, W, 4) or (H, W), got {array.shape}")
    return Image.fromarray(np.ascontiguousarray(array))


# --- many pictures ----------------------------------------------------------------------------------------------------


def _singles(pictures: Picture | Iterable[Picture]) -> Iterator[Picture]:
    """One picture after the other, whatever they came in."""
    if isinstance(pictures, str | os.PathLike | Image.Image):
        yield pictures
    elif isinstance(pictures, np.ndarray | Tensor):
        many = pictures.ndim == 4
        yield from pictures if many else [pictures]
    elif isinstance(pictures, Iterable):
        yield from pictures
    else:
        raise PictureError(f"expected a picture, or a list or generator of pictures, got {type(pictures).__name__}")


def _with_modality(
    pictures: Iterator[Picture], modality: Modality | Iterable[Modality]
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
    if isinstance(word, str | int | np.integer) and (found := MODALITIES.get(word)) is not None:  # type: ignore[arg-type]
        return found
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
