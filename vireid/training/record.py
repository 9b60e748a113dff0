"""Run: the folder that holds all of one training: what was run, its log, its checkpoint and the embedder.

    recipe.json           method, settings, recipes, data, seed, versions: written once, before the first step
    log.jsonl             one line per log interval and per epoch
    last.pt               method, optimizers, random states, progress; opens with torch.load(weights_only=True)
    best.pt               the same method at its best epoch, only where a selection was asked for
    embedder.safetensors  what is deployed, of the last epoch (or the best), rebuilt without the method
    samples/*.png         STAGE-EPOCH.png, only of methods that make pictures (Method.samples)
    refiner.safetensors   in its place where the run refines the embeddings of another run, its base

Every file is written under a temporary name, flushed to the disk and renamed: a kill at any moment leaves whole files.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import os
import platform
import random
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import nn

from vireid.errors import ArgumentError, RunError
from vireid.layers.embedder import Embedder, load_embedder, save_embedder
from vireid.layers.refiner import Refiner, load_refiner, save_refiner
from vireid.system import remove_partials, replacing
from vireid.training.samples import sheet
from vireid.training.selection import LAST_EPOCH
from vireid.version import __version__

FORMAT = 1  # of recipe.json and the checkpoints
RECIPE, LAST, BEST, EMBEDDER, REFINER = (
    "recipe.json",
    "last.pt",
    "best.pt",
    "embedder.safetensors",
    "refiner.safetensors",
)
SAMPLES = "samples"  # folder
# what has to agree for a run to go on; the rest of recipe.json (versions, compile) may change
COMPARED = ("class", "num_pids", "camids", "settings", "recipes", "dataset", "partition", "data", "seed", "data_seed")
COMPARED += ("precision", "world", "init", "checkpoint", "base")
ModuleT = TypeVar("ModuleT", bound=nn.Module)


@dataclass(frozen=True)
class Run:
    """A run folder at `path`; `about` is its recipe.json."""

    path: Path
    about: dict[str, Any]

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run at `path`; raises RunError where it is not a run folder."""
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"there is no run folder {path}; expected a folder that `vireid train` wrote")
        if not (path / RECIPE).is_file():
            raise RunError(
                f"{path} is not a run folder: it holds no {RECIPE}; pass the folder that `vireid train` wrote"
            )
        try:
            about = json.loads((path / RECIPE).read_text(encoding="utf-8"))
        except ValueError as error:
            raise RunError(f"{path / RECIPE} is not readable as JSON ({error}); restore it or train again") from error
        if not isinstance(about, dict) or about.get("format") != FORMAT:
            found = about.get("format") if isinstance(about, dict) else None
            raise RunError(f"{path / RECIPE} has format {found!r}, this vireid {__version__} reads format {FORMAT}")
        return cls(path, about)

    @classmethod
    def begin(cls, path: str | Path, about: Mapping[str, Any], resume: bool = False) -> Run:
        """Make the folder and write recipe.json, or with `resume` go on in a folder whose recipe.json says the same.

        Raises RunError where a run is there already, or with `resume` where it differs (every difference is listed).
        """
        path = Path(path)
        now: dict[str, Any] = to_jsonable(about)
        if (path / RECIPE).exists():
            if not resume:
                raise RunError(f"{path} already holds a run; pass resume=True (--resume) to go on, or another folder")
            former = cls.open(path)
            found = differences({k: former.about.get(k) for k in COMPARED}, {k: now.get(k) for k in COMPARED})
            if found:
                listed = "\n".join(f"  - {line}" for line in found)
                raise RunError(
                    f"{path} cannot be resumed, its training was another (the run has -> now asked for):\n{listed}\n"
                    "Resume with the settings of the run, or train into another folder."
                )
            remove_partials(path)
            return former
        path.mkdir(parents=True, exist_ok=True)
        with replacing(path / RECIPE) as partial:
            partial.write_text(json.dumps(now, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return cls(path, now)

    @property
    def finished(self) -> bool:
        """Whether training reached the end of its last stage."""
        return (self.path / LAST).exists() and bool(self.checkpoint()["finished"])

    @property
    def stamp(self) -> dict[str, str]:
        """What every figure computed from this run is printed with."""
        names = ("method", "dataset", "partition", "data", "seed", "init", "checkpoint", "precision")
        stamp = {name: str(self.about[name]) for name in names if self.about.get(name) not in (None, "")}
        return {**stamp, "run": self.path.name, "vireid": str(self.about.get("versions", {}).get("vireid", ""))}

    def save(self, state: Mapping[str, Any], name: str = LAST) -> None:
        """Write a checkpoint of plain containers and tensors."""
        # through a file of Python's, because torch's own writer does not say that the disk is full
        with replacing(self.path / name) as partial, partial.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)

    def checkpoint(self, name: str = LAST) -> dict[str, Any]:
        """Read a checkpoint to the CPU; raises RunError where there is none or it is damaged."""
        path = self.path / name
        if not path.exists():
            raise RunError(
                f"{self.path} holds no {name} yet: training was stopped before its first epoch ended; resume it"
            )
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a file that is cut or foreign
            raise RunError(f"{path} is damaged ({type(error).__name__}: {error}); restore it or train again") from error
        if state.get("format") != FORMAT:
            raise RunError(
                f"{path} has format {state.get('format')!r}, this vireid {__version__} reads format {FORMAT}"
            )
        return state

    def load(self, method: ModuleT) -> ModuleT:
        """Give `method` the weights that the run reports: of its last epoch so far, or of its best where selected."""
        name = BEST if self.about.get("checkpoint") != LAST_EPOCH and (self.path / BEST).exists() else LAST
        try:
            method.load_state_dict(self.checkpoint(name)["method"])
        except RuntimeError as error:
            raise RunError(
                f"{self.path / name} does not fit this {type(method).__name__}: build it with num_pids="
                f"{self.about.get('num_pids')} and the settings {self.about.get('settings')}\n{error}"
            ) from error
        return method

    def save_embedder(self, embedder: Embedder) -> None:
        """Write embedder.safetensors."""
        with replacing(self.path / EMBEDDER) as partial:
            save_embedder(embedder, partial)

    def save_samples(self, rows: Mapping[str, torch.Tensor], stage: int, epoch: int) -> None:
        """Write samples/STAGE-EPOCH.png with one named row of images (N, 3, H, W) per entry."""
        path = self.path / SAMPLES / f"{stage}-{epoch:03d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            sheet(rows).save(partial, format="PNG")

    def save_refiner(self, refiner: Refiner) -> None:
        """Write refiner.safetensors."""
        with replacing(self.path / REFINER) as partial:
            save_refiner(refiner, partial)

    def refiner(self, device: str | torch.device = "cpu") -> Refiner:
        """The refiner that the run reports, in evaluation mode; RunError where the run refines nothing."""
        if "base" not in self.about:
            raise RunError(
                f"{self.path} does not refine: {self.about.get('method')} embeds pictures itself; expected a run of a "
                "refining method such as nformer"
            )
        if not (self.path / REFINER).exists():
            raise RunError(f"{self.path} holds no {REFINER} yet: its first epoch has not ended; resume the training")
        return load_refiner(self.path / REFINER, device)

    def embedder(self, device: str | torch.device = "cpu") -> Embedder:
        """The embedder that the run reports, in evaluation mode; of its last checkpoint if it is unfinished."""
        if (self.path / EMBEDDER).exists():
            return load_embedder(self.path / EMBEDDER, device)
        if "base" in self.about:
            raise RunError(
                f"{self.path} has no embedder: it refines the embeddings of another run, "
                f"{self.about['base']['path']}, whose embedder embeds"
            )
        rule = self.about.get("checkpoint")
        if rule != LAST_EPOCH and not (self.path / BEST).exists():
            raise RunError(f"{self.path} holds no {EMBEDDER} yet: no epoch was selected by {rule}; resume the training")
        if (self.path / LAST).exists():
            raise RunError(
                f"{self.path} holds no {EMBEDDER}: the embedder of {self.about.get('class')} is no vireid Embedder; "
                "build the method and use Run.load(method).embedder"
            )
        raise RunError(f"{self.path} holds no {EMBEDDER} yet: its first epoch has not ended; resume the training")


def describe(
    method: Any, recipes: tuple[Any, ...], table: Any, stamp: Mapping[str, Any], **more: Any
) -> dict[str, Any]:
    """recipe.json: all that says what a training was. `stamp` may hold `settings` and `init` and names of your own."""
    kind = type(method)
    about = {
        "format": FORMAT,
        "method": kind.__name__,
        "class": class_name(kind),
        "num_pids": method.num_pids,
        "camids": method.camids,
        "dataset": table.dataset,
        "partition": table.partition,
        "data": table.fingerprint,
        "recipes": recipes,
        "versions": versions(),
        "git": git_commit(),
        **more,
    }
    taken = sorted(set(stamp) & set(about))
    if taken:
        raise ArgumentError(f"stamp names {taken}, which train() records itself; leave them out")
    base = getattr(method, "base", None)  # of a method that refines the embeddings of another run
    about |= {} if base is None else {"base": base.record}
    return to_jsonable({**about, "settings": {}, "init": base.name if base else "from scratch", **stamp})


def class_name(kind: type) -> str:
    """`module.Class` inside vireid; `file.py:Class` for a user's own, whose module may be called anything."""
    if kind.__module__.partition(".")[0] == "vireid":
        return f"{kind.__module__}.{kind.__qualname__}"
    return f"{Path(inspect.getfile(kind)).name}:{kind.__qualname__}"


def to_jsonable(value: Any) -> Any:
    """Plain JSON values: a dataclass or object becomes a dict whose `class` is its name, a function its dotted name."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): to_jsonable(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [to_jsonable(item) for item in (sorted(value) if isinstance(value, set | frozenset) else value)]
    if isinstance(value, np.ndarray | np.generic | torch.Tensor):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, type) or (callable(value) and hasattr(value, "__qualname__")):
        return f"{value.__module__}.{value.__qualname__}"
    if dataclasses.is_dataclass(value):
        fields = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif hasattr(value, "__dict__"):
        fields = {name: item for name, item in vars(value).items() if not name.startswith("_")}
    else:
        raise TypeError(f"a {type(value).__name__} cannot be written to {RECIPE}; use a dataclass or plain values")
    return {"class": type(value).__name__, **to_jsonable(fields)}


def differences(had: Any, now: Any, name: str = "") -> list[str]:
    """One line `name: had -> now` for each value that differs between two JSON values."""
    if isinstance(had, dict) and isinstance(now, dict):
        keys = [*had, *(key for key in now if key not in had)]
        inner = ((f"{name}.{k}" if name else k, had.get(k, "nothing"), now.get(k, "nothing")) for k in keys)
    elif isinstance(had, list) and isinstance(now, list) and len(had) == len(now):
        inner = ((f"{name}.{i}", a, b) for i, (a, b) in enumerate(zip(had, now, strict=True)))
    else:
        return [] if had == now else [f"{name}: {had} -> {now}"]
    return [line for key, a, b in inner for line in differences(a, b, key)]


def random_state() -> dict[str, Any]:
    """The states of Python's, numpy's and torch's generators of this process as plain containers and tensors."""
    kind, keys, position, has_gauss, gauss = np.random.get_state()
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() and torch.cuda.is_initialized() else None
    numpy_state = (str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), int(position), int(has_gauss))
    return {
        "python": random.getstate(),
        "numpy": (*numpy_state, float(gauss)),
        "torch": torch.get_rng_state(),
        "cuda": cuda,
    }


def set_random_state(state: Mapping[str, Any]) -> None:
    """Put back what `random_state` returned."""
    random.setstate(state["python"])
    kind, keys, position, has_gauss, gauss = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), position, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None:
        if not torch.cuda.is_available():
            raise RunError("the checkpoint was written on a GPU and none is here; resume it on a GPU")
        torch.cuda.set_rng_state(state["cuda"])


def versions() -> dict[str, str]:
    """Versions of what decides a training's numbers."""
    found = {"vireid": __version__, "python": platform.python_version(), "torch": torch.__version__}
    return {**found, "numpy": np.__version__, "device": _gpu() or "cpu"}


def git_commit() -> str | None:
    """Commit of the checkout that vireid is imported from, `+changes` where files differ; None outside a checkout."""
    root = Path(__file__).resolve().parent.parent
    if not (root / ".git").exists():
        return None
    try:
        found = subprocess.run(
            ["git", "-C", str(root), "rev-parse", "HEAD"], capture_output=True, text=True, timeout=10, check=True
        )
        changed = subprocess.run(
            ["git", "-C", str(root), "status", "--porcelain", "-uno"],
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or no commit yet: the record then says null
        return None
    return found.stdout.strip() + ("+changes" if changed.stdout.strip() else "")


def _gpu() -> str:
    return torch.cuda.get_device_name() if torch.cuda.is_available() and torch.cuda.is_initialized() else ""
