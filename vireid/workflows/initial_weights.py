"""What a training starts from: weights by name, a file, an address, a run folder, a bundle or a shipped model."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid import distributed, models
from vireid.deploy.bundle_config import CONFIG
from vireid.errors import RunError
from vireid.layers.backbones.choice import full_name
from vireid.layers.public_weights import PUBLIC
from vireid.layers.weights_file import RUN_CHECKPOINT, WeightsFile, read
from vireid.layers.weights_source import locate
from vireid.method import Method, Recipe
from vireid.system import file_digest
from vireid.training.run_folder import BEST, EMBEDDER, LAST, RECIPE, REFINER, RunFolder

SCRATCH = (
    "no --weights: training starts from scratch (random weights), which costs much accuracy. Published figures start "
    "from ImageNet: --weights imagenet, or the path of resnet50-19c8e357.pth"
)
MAX_LISTED = 3
log = logging.getLogger(__name__)


def file_of(source: str | Path) -> Path:
    """The file of weights of a run folder, a bundle or a shipped model, or where `locate` finds it.

    The name of a model that comes with vireid is that model, also where a folder has the same name.

    Raises RunError for a folder that holds no weights, and what `locate` raises.
    """
    text, path = str(source), Path(source).expanduser()
    if isinstance(source, str) and text not in PUBLIC and text in models.names():
        path = models.path_of(text)
    if not path.is_dir() or text in PUBLIC:
        return locate(source)
    if (path / RECIPE).is_file() or (path / CONFIG).is_file():
        for name in (EMBEDDER, REFINER, BEST, LAST):  # what the run reports; of an unfinished one, its checkpoint
            if (path / name).is_file():
                return path / name
        if (path / RECIPE).is_file():
            RunFolder.open(path).embedder()  # raises what there is to say
    raise RunError(
        f"{path} is a folder without weights of vireid: expected a run folder or a bundle ({EMBEDDER}), or the path of "
        "a file (.pth, .safetensors)"
    )


def label_of(source: str | Path, path: Path) -> str:
    """How the weights are called in the stamp: imagenet, a model, a file, or a folder and its file; and the sha256."""
    own = source if source == "imagenet" or source in models.names() else path.name
    if own == path.name and Path(source).is_dir():
        own = f"{path.parent.name}/{path.name}"
    return f"{own} (sha256 {file_digest(path)[:8]})"


def initial_weights(model: Method[Any], recipes: Sequence[Recipe], weights: str | None) -> dict[str, str]:
    """Load the initial weights into a method; how they are called in the stamp."""
    if weights is None:
        if distributed.is_main() and any(recipe.views for recipe in recipes):
            log.warning("%s", SCRATCH)
        return {}
    if not distributed.is_main():  # the first process's weights are copied to all
        return {"init": weights}
    file = read(file_of(full_name(weights, model.settings)))
    load(model, file)
    return {"init": label_of(weights, file.path)}


def load(model: Method[Any], file: WeightsFile) -> None:
    """Fill a method from a file; tensors that were not used are logged."""
    unused = [*model.load_weights(file.tensors), *file.left_out]
    if file.wrapper == RUN_CHECKPOINT and "reported" in file.beside:
        log.warning(
            "%s holds the weights of the last step; those that its run reports, averaged or mixed, are in %s beside it",
            file.path,
            EMBEDDER,
        )
    if unused:
        log.info("%s: %d tensors were not used (%s)", file.path.name, len(unused), listed(unused))


def listed(names: Sequence[str]) -> str:
    """The first names, and dots for the others."""
    return ", ".join(names[:MAX_LISTED]) + (" ..." if len(names) > MAX_LISTED else "")
