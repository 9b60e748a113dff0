"""RunFolder: the files of one training: its record, its log, its checkpoints and what is deployed of it.

    recipe.json           the RunRecord: method, settings, recipes, data, seed, versions; written before the first step
    log.jsonl             one line per log interval and per epoch
    last.pt               method, optimizers, random states, progress; opens with torch.load(weights_only=True)
    best.pt               the same method at its best epoch, only where a selection was requested
    embedder.safetensors  what is deployed, of the last epoch (or the best), rebuilt without the method
    refiner.safetensors   in its place where the run refines the embeddings of another run, its base
    samples/*.png         STAGE-EPOCH.png, only of methods that make pictures (Method.samples)

Every file is written under a temporary name, flushed to the disk and renamed: a kill at any moment leaves whole files.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from vireid.errors import RunError
from vireid.json_file import JsonFile, check_format
from vireid.own_files import Code
from vireid.system import file_digest, remove_partials, replacing
from vireid.training.record import FORMAT, BaseRecord, RunRecord
from vireid.training.selection import LAST_EPOCH
from vireid.types import Deployment
from vireid.version import __version__

if TYPE_CHECKING:  # torch is imported where networks and checkpoints are read and written, not to read a record
    import torch
    from torch import nn

    from vireid.layers.embedder import Embedder
    from vireid.layers.refiner import Refiner
    from vireid.method import Method, Recipe

log = logging.getLogger(__name__)

RECIPE, LAST, BEST = "recipe.json", "last.pt", "best.pt"
EMBEDDER, REFINER = "embedder.safetensors", "refiner.safetensors"
SAMPLES = "samples"  # folder
ADVICE = "restore it or train again"
RECORD = JsonFile(RECIPE, RunRecord, FORMAT, RunError, ADVICE)
MethodT = TypeVar("MethodT", bound="Method[Any]")


@dataclass(frozen=True)
class RunFolder:
    """A run folder at `path` and its `record`."""

    path: Path
    record: RunRecord

    @classmethod
    def open(cls, path: str | Path) -> RunFolder:
        """The run at `path`; raises RunError where it is not a run folder."""
        path = Path(path)
        if not path.is_dir():
            raise RunError(f"there is no run folder {path}; expected a folder that `vireid train` wrote")
        if not (path / RECIPE).is_file():
            raise RunError(
                f"{path} is not a run folder: it holds no {RECIPE}; pass the folder that `vireid train` wrote"
            )
        record = RECORD.read(path)
        if not record.recipes:
            raise RunError(f"{path / RECIPE} is not what vireid {__version__} reads (recipes: it has none); {ADVICE}")
        return cls(path, record)

    @classmethod
    def begin(
        cls,
        path: str | Path,
        record: RunRecord,
        resume: bool = False,
        defaults: Mapping[str, Any] | None = None,
        recipes: Sequence[Recipe] = (),
    ) -> RunFolder:
        """Make the folder and write recipe.json, or with `resume` continue in a folder whose record says the same,
        or the same with more epochs in its last stage. A setting that the run was recorded without has its default:
        that in `defaults`, or that of its part of `recipes`.

        Raises RunError where a run is there already, or with `resume` where it differs (every difference is listed).
        """
        path = Path(path)
        if (path / RECIPE).exists():
            if not resume:
                raise RunError(
                    f"{path} already holds a run; pass resume=True (--resume) to continue it, or another folder"
                )
            former = cls.open(path)
            new = {name: value for name, value in (defaults or {}).items() if name in record.settings}
            recorded = former.record.completed(new, recipes)
            if had := former.record.method_file:
                now = record.method_file
                if now is None or now.sha256 != had.sha256:
                    log.warning("%s has changed since the training of %s began", had.path, path)
            differences = recorded.differences(record)
            if recorded.is_longer(record):
                before = (*recorded.continued_from, recorded.last_recipe.epochs)
                longer = cls(path, recorded.model_copy(update={"recipes": record.recipes, "continued_from": before}))
                longer.write_record()
                return longer
            if differences:
                listed = "\n".join(f"  - {line}" for line in differences)
                raise RunError(
                    f"{path} cannot be resumed, its training was another (the run has -> now requested):\n{listed}\n"
                    "Resume with the settings of the run, or train into another folder."
                )
            remove_partials(path)
            return former
        path.mkdir(parents=True, exist_ok=True)
        folder = cls(path, record)
        folder.write_record()
        return folder

    def write_record(self) -> None:
        """Write recipe.json."""
        with replacing(self.path / RECIPE) as partial:
            partial.write_text(json.dumps(self.record.plain(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    @property
    def finished(self) -> bool:
        """Whether training reached the end of its last stage."""
        return (self.path / LAST).exists() and bool(self.checkpoint().get("finished"))

    @property
    def stamp(self) -> dict[str, str]:
        """What every figure computed from this run is printed with."""
        return {**self.record.stamp, "run": self.path.name, "vireid": str(self.record.versions.get("vireid", ""))}

    # --- checkpoints --------------------------------------------------------------------------------------------------

    def save(self, state: Mapping[str, Any], name: str = LAST) -> None:
        """Write a checkpoint of plain containers and tensors."""
        import torch

        # through a file of Python's, because torch's own writer does not say that the disk is full
        with replacing(self.path / name) as partial, partial.open("wb") as file:
            torch.save({"format": FORMAT, **state}, file)

    def checkpoint(self, name: str = LAST) -> dict[str, Any]:
        """Read a checkpoint to the CPU; raises RunError where there is none or it is damaged."""
        import torch

        path = self.path / name
        if not path.exists():
            raise RunError(
                f"{self.path} holds no {name} yet: training was stopped before its first epoch ended; resume it"
            )
        try:
            state = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # torch raises many kinds for a file that is cut or foreign
            # without torch's words, which advise to load it unsafely
            raise RunError(f"{path} is cut off or is not a checkpoint ({type(error).__name__}); {ADVICE}") from error
        if not isinstance(state, dict):
            raise RunError(f"{path} is not a checkpoint that vireid wrote; {ADVICE}")
        check_format(path, state.get("format"), FORMAT, RunError, ADVICE)
        return state

    def load(self, method: MethodT) -> MethodT:
        """Give `method` the weights that the run reports: of its last epoch so far, or of its best where selected."""
        from vireid.training.reported import load_reported

        name = BEST if self.record.checkpoint != LAST_EPOCH and (self.path / BEST).exists() else LAST
        try:
            state = self.checkpoint(name)
            method.load_state_dict(state["method"])
            load_reported(method, state.get("reported"))
        except (RuntimeError, LookupError, TypeError, AttributeError) as error:  # the latter of values of other kinds
            raise RunError(
                f"{self.path / name} does not fit this {type(method).__name__}: build it with num_pids="
                f"{self.record.num_pids} and the settings {self.record.settings}\n{error}"
            ) from error
        return method

    # --- what is deployed ---------------------------------------------------------------------------------------------

    def save_artifact(self, network: nn.Module) -> None:
        """Write the file of a network that is used without its method, if it is an Embedder or a Refiner."""
        from vireid.layers.embedder import Embedder, save_embedder
        from vireid.layers.refiner import Refiner, save_refiner

        if isinstance(network, Embedder):
            with replacing(self.path / EMBEDDER) as partial:
                save_embedder(network, partial, self.record.deployment)
        elif isinstance(network, Refiner):
            with replacing(self.path / REFINER) as partial:
                save_refiner(network, partial)

    @property
    def code(self) -> str | None:
        """The file of a method of your own, which networks of your own are rebuilt by."""
        return None if self.record.method_file is None else self.record.method_file.path

    def embedder(self, device: str | torch.device = "cpu", method: Code | None = None) -> Embedder:
        """The embedder that the run reports, in evaluation mode; of its last checkpoint if it is unfinished.

        One of your own class is rebuilt by the file of the method that was trained, or by `method`, which is executed.
        """
        from vireid.layers.embedder import load_embedder

        if (self.path / EMBEDDER).exists():
            return load_embedder(self.path / EMBEDDER, device, method or self.code)
        if self.record.base is not None:
            raise RunError(
                f"{self.path} has no embedder: it refines the embeddings of another run, {self.record.base.path}, "
                "whose embedder embeds"
            )
        rule = self.record.checkpoint
        if rule != LAST_EPOCH and not (self.path / BEST).exists():
            raise RunError(f"{self.path} holds no {EMBEDDER} yet: no epoch was selected by {rule}; resume the training")
        if (self.path / LAST).exists():
            raise RunError(
                f"{self.path} holds no {EMBEDDER}: the embedder of {self.record.class_name} is not a vireid Embedder; "
                "build the method and use RunFolder.load(method).embedder"
            )
        raise RunError(f"{self.path} holds no {EMBEDDER} yet: its first epoch has not ended; resume the training")

    @cached_property
    def embedder_digest(self) -> str:
        """The beginning of the sha256 of the embedder's file; RunError where there is none."""
        if not (self.path / EMBEDDER).exists():
            self.embedder()  # raises what there is to say
        return file_digest(self.path / EMBEDDER)[:8]

    def refiner(self, device: str | torch.device = "cpu", method: Code | None = None) -> Refiner:
        """The refiner that the run reports, in evaluation mode; RunError where the run refines nothing."""
        from vireid.layers.refiner import load_refiner

        self.base  # noqa: B018 (raises where the run refines nothing)
        if not (self.path / REFINER).exists():
            raise RunError(f"{self.path} holds no {REFINER} yet: its first epoch has not ended; resume the training")
        return load_refiner(self.path / REFINER, device, method or self.code)

    @property
    def base(self) -> BaseRecord:
        """The run whose embeddings this one refines; RunError where it refines nothing."""
        if self.record.base is None:
            raise RunError(
                f"{self.path} does not refine: {self.record.method} embeds pictures itself; expected a run of a "
                "refining method such as nformer"
            )
        return self.record.base

    @property
    def deployment(self) -> Deployment:
        """How pictures are prepared for the run's embedder and how its vectors are compared."""
        return self.record.deployment

    def save_samples(self, rows: Mapping[str, torch.Tensor], stage: int, epoch: int) -> None:
        """Write samples/STAGE-EPOCH.png with one named row of images (N, 3, H, W) per entry."""
        from vireid.training.samples import sheet

        path = self.path / SAMPLES / f"{stage}-{epoch:03d}.png"
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as partial:
            sheet(rows).save(partial, format="PNG")
