"""`vireid adapt`: a short training of a model on unlabeled crops of your own cameras.

    vectors of all crops, centered on themselves                            evaluation/centering.py
    pairs: reciprocal nearest neighbors across the modalities,              evaluation/pseudo_pairs.py
    of which the most similar ones are taken, each as one identity
    contrast from the model's weights, batch statistics of the backbone as they are
    w = mix w_trained + (1 - mix) w_start                                   training/reported.py

Crops of one track, or of one name, at one camera are a group: their mean is compared, and all of them are pictures
of the identity.

A quarter of the groups is held out. Where the new model finds fewer pairs among them than the model that it started
from, its modalities lie further apart for people that it was not trained on, and it is refused (docs/train/adapt.md).
"""

from __future__ import annotations

import csv
import logging
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vireid.declaration import configured
from vireid.deploy.bundle import Bundle
from vireid.deploy.extractor import FeatureExtractor
from vireid.deploy.model import bundle_of
from vireid.errors import DataError, PictureError, RunError, SourceError
from vireid.evaluation.centering import too_few
from vireid.evaluation.pseudo_pairs import PseudoPairs, pseudo_pairs
from vireid.images import SUFFIXES
from vireid.ingest.sources import Crop, crops_of
from vireid.system import replacing
from vireid.training.run_folder import RECIPE
from vireid.types import MODALITIES
from vireid.workflows.continuing import METHOD, contrast_words
from vireid.workflows.options import AdaptOptions, TrainOptions
from vireid.workflows.run import Run
from vireid.workflows.train import train_with

PAIRS = "pseudo-pairs.csv"
COLUMNS = ("path", "pid", "camid", "modality", "split", "similarity")
BATCH_PAIRS, MIN_PAIRS = 48, 50
HELD_OUT, MIN_HELD_OUT = 0.25, 10  # share of the groups; pairs of the model among them, fewer tell nothing
GENTLE = (  # for some hundred pictures; those of contrast itself cost more than the pairs bring (docs/train/adapt.md)
    "schedule.warmup_steps=10", "optimizers.backbone.lr=1e-4", "optimizers.head.lr=5e-4",
)  # fmt: skip
CHUNK = 256  # crops that are opened together
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Crops:
    """N crops with unit vectors (N, D), modality (N,) and group (N,)."""

    listed: list[Crop]
    vectors: np.ndarray
    modality: np.ndarray
    group: np.ndarray

    def where(self, rows: np.ndarray) -> Crops:
        """The crops of a mask (N,)."""
        listed = [crop for crop, kept in zip(self.listed, rows, strict=True) if kept]
        return Crops(listed, self.vectors[rows], self.modality[rows], self.group[rows])

    def pairs(self) -> PseudoPairs:
        """The pairs across the modalities."""
        return pseudo_pairs(self.vectors, self.modality, self.group)


def adapt(
    target: str | Path,
    pictures: Path | Sequence[Path],
    run: str | Path | None = None,
    options: AdaptOptions | None = None,
    **words: Any,
) -> Run:
    """Fine-tune a model (by name, run folder or bundle) on unlabeled crops, as `vireid index` takes them.

    `run` is the folder to write, by default runs/adapted/DATE-TIME; the pairs are listed in RUN/pseudo-pairs.csv.
    `words` are the fields of AdaptOptions. Raises SourceError, DataError where too few pairs are found, ArgumentError
    for a model of another method, BundleError, RunError (also for a result that finds fewer pairs among held-out crops
    than the model; its folder stays), SettingsError.
    """
    options = configured(AdaptOptions, options, words)
    folder = Path(run or f"runs/adapted/{time.strftime('%Y%m%d-%H%M%S')}")
    if (folder / RECIPE).exists():
        raise RunError(f"{folder} already holds a run; name another folder")
    bundle = bundle_of(target)
    settings = contrast_words(target, bundle)
    crops = read_crops([pictures] if isinstance(pictures, Path) else pictures, bundle, options)
    out = held_out(crops.group, options.seed)
    seen, unseen = crops.where(~out), crops.where(out)
    pairs = chosen_pairs(seen, options.share)
    folder.mkdir(parents=True, exist_ok=True)
    write_pairs(folder / PAIRS, seen, pairs)
    settings += [
        f"epochs={options.epochs}", f"mix={options.mix}", f"sampler.pids={min(BATCH_PAIRS, len(pairs))}", *GENTLE,
    ]  # fmt: skip
    training = TrainOptions(weights=str(target), seed=options.seed, device=options.device, progress=options.progress)
    made = train_with(METHOD, f"manifest={folder / PAIRS}", folder, training, settings)
    check_held_out(target, made, unseen, options)
    return made


def read_crops(sources: Sequence[Path], bundle: Bundle, options: AdaptOptions) -> Crops:
    """The crops of all sources, embedded; those that cannot be read are logged and left out.

    SourceError for a video, DataError for too few crops of a modality.
    """
    crops = (crop for source in sources for crop in crops_of(source, modality=options.modality))
    listed, vectors, kinds = embedded(crops, bundle, options)
    if few := too_few(np.bincount(kinds, minlength=len(MODALITIES))):
        raise DataError(
            f"too few crops: {few}; give more, of both kinds of cameras, or say the --modality of each list"
        )
    return Crops(listed, vectors, kinds, groups_of(listed, kinds))


def embedded(crops: Iterable[Crop], bundle: Bundle, options: AdaptOptions) -> tuple[list[Crop], np.ndarray, np.ndarray]:
    """The crops that can be read, their unit vectors (N, D) and modality (N,)."""
    extractor = FeatureExtractor(bundle, device=options.device, batch_size=options.batch_size)
    listed: list[Crop] = []
    vectors, modality = [np.zeros((0, extractor.dim), np.float32)], [np.zeros(0, np.int64)]
    waiting = iter(crops)
    while part := list(islice(waiting, CHUNK)):
        opened: list[tuple[Crop, Image.Image]] = []
        for crop in part:
            if crop.path.suffix.lower() not in SUFFIXES:
                raise SourceError(f"{crop.path} is not a picture; expected crops of one person each")
            try:
                opened.append((crop, crop.open(extractor.gray)))
            except PictureError as error:
                log.warning("left out: %s", error)
        for one, kinds in extractor.batches([picture for _, picture in opened], [crop.modality for crop, _ in opened]):
            vectors.append(one)
            modality.append(kinds)
        listed += [crop for crop, _ in opened]
    return listed, np.concatenate(vectors), np.concatenate(modality)


def groups_of(crops: Sequence[Crop], modality: np.ndarray) -> np.ndarray:
    """Numbers (N,): one for each track, or name, of a camera and modality, and one for each other crop."""
    numbers: dict[tuple[object, ...], int] = {}
    places = []
    for row, (crop, kind) in enumerate(zip(crops, modality.tolist(), strict=True)):
        known = ("track", crop.track) if crop.track else ("pid", crop.pid) if crop.pid else ("row", row)
        places.append(numbers.setdefault((crop.camera, kind, *known), len(numbers)))
    return np.array(places, np.int64)


def held_out(group: np.ndarray, seed: int) -> np.ndarray:
    """Mask (N,) of the crops of a share of the groups, drawn by the seed."""
    return (np.random.default_rng(seed).random(int(group.max()) + 1) < HELD_OUT)[group]


def check_held_out(target: str | Path, made: Run, crops: Crops, options: AdaptOptions) -> None:
    """RunError where the run finds fewer pairs among these crops than the model that it started from."""
    before = len(crops.pairs())
    if before < MIN_HELD_OUT:
        log.warning("%d pairs in %d held-out crops: too few to say whether the run is worse", before, len(crops.listed))
        return
    stated = [replace(crop, modality=MODALITIES[kind]) for crop, kind in zip(crops.listed, crops.modality, strict=True)]
    _, vectors, _ = embedded(stated, bundle_of(made.path), options)
    after = len(replace(crops, vectors=vectors).pairs())
    log.info("pairs in %d held-out crops: %d with %s, %d with the run", len(stated), before, target, after)
    if after < before:
        raise RunError(
            f"{made.path} is probably no better than {target}: expected {before} pairs or more in {len(stated)} crops "
            f"that were held out, came {after}. Keep {target}, give crops of more hours, train less (--epochs, --mix), "
            "or label people (docs/train/adapt.md)"
        )


def chosen_pairs(crops: Crops, share: float) -> PseudoPairs:
    """The most similar pairs, a `share` of all; DataError for fewer than MIN_PAIRS."""
    pairs = crops.pairs()
    taken = round(share * len(pairs))
    log.info(
        "%d pairs across the modalities in %d crops; the %d most similar are taken",
        len(pairs), len(crops.listed), taken,
    )  # fmt: skip
    if taken < MIN_PAIRS:
        raise DataError(
            f"expected {MIN_PAIRS} pairs or more to train on, came {taken}, {share:g} of {len(pairs)} in "
            f"{len(crops.listed)} crops: the cameras of both modalities have to see the same people. Give crops of "
            "more hours, or label people and train on them (docs/train/adapt.md)"
        )
    return pairs.first(taken)


def write_pairs(path: Path, crops: Crops, pairs: PseudoPairs) -> None:
    """The crops of the pairs as a manifest, a pair as an identity."""
    cameras = {name: number for number, name in enumerate(sorted({crop.camera for crop in crops.listed}), 1)}
    with replacing(path) as partial, partial.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for pid, (*groups, similarity) in enumerate(zip(pairs.visible, pairs.infrared, pairs.similarity, strict=True)):
            for row in np.flatnonzero(np.isin(crops.group, groups)):
                crop = crops.listed[row]
                place, kind = crop.path.resolve().as_posix(), MODALITIES[crops.modality[row]]
                writer.writerow((place, pid, cameras[crop.camera], kind, "train", f"{similarity:.4f}"))
