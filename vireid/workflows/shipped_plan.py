"""plan.yaml: how a model that comes with vireid is made: synthetic people, method, settings, and what its card says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vireid import models
from vireid.data import datasets
from vireid.declaration import Count, Index, configured, settings, value_text
from vireid.deploy.bundle_config import PLAN
from vireid.errors import BundleError, SettingsError
from vireid.synthetic.layouts import Layout
from vireid.synthetic.make import MARK, make
from vireid.system import replacing
from vireid.training.key_values import flat, read_yaml
from vireid.workflows.options import TrainOptions
from vireid.workflows.run_rows import training_splits

MANIFEST = "manifest.csv"


@settings
class SyntheticSet:
    """Synthetic people in an official layout; vireid.synthetic draws the same pictures for the same values."""

    people: Count
    """Number of people."""
    images: Count
    """Pictures of each person and camera."""
    seed: Index
    """Another seed draws other people."""
    size: tuple[Count, Count]
    """Height and width in pixels."""
    layout: Layout = "sysu"
    """Whose cameras and folders."""
    scenes: Count = 1
    """Backgrounds of each camera."""

    def render(self, root: Path) -> Path:
        """Draw the set at `root`, or keep the one that is there."""
        return make(
            root,
            self.layout,
            people=self.people,
            images_per_camera=self.images,
            seed=self.seed,
            size=self.size,
            scenes=self.scenes,
            masks=False,
        )

    def drawn_at(self, root: Path) -> bool:
        """Whether this set lies at `root`; masks, which training does not read, may be there or not."""
        if not (root / MARK).is_file():
            return False
        mark = json.loads((root / MARK).read_text(encoding="utf-8"))
        drawn = {name: mark.get(name) for name in ("people", "images_per_camera", "seed", "scenes", "layout")}
        return tuple(mark.get("size", ())) == self.size and drawn == {
            "people": self.people,
            "images_per_camera": self.images,
            "seed": self.seed,
            "scenes": self.scenes,
            "layout": self.layout,
        }

    def __str__(self) -> str:
        height, width = self.size
        scenes = f"{self.scenes} backgrounds a camera, " if self.scenes > 1 else ""
        return (
            f"{self.people} people, {self.images} pictures of each by each camera ({self.layout}), {height}x{width}, "
            f"{scenes}seed {self.seed}"
        )


@settings
class ModelPlan:
    """What plan.yaml says."""

    about: str
    """What the model is for, in the words of its card."""
    limits: str
    """What it was not made for, in the words of its card."""
    notice: str
    """Whose work it builds on, under which license."""
    data: tuple[SyntheticSet, ...]
    """What it is trained on: one or more sets."""
    selection: SyntheticSet
    """Whom it is calibrated and measured on; their seed is not one of the training."""
    method: str
    """Method by name."""
    settings: dict[str, Any]
    """Settings that differ from the method's own."""
    training: dict[str, Any]
    """Options of the training (weights, seed, select)."""

    @classmethod
    def read(cls, path: Path) -> ModelPlan:
        """The plan in a YAML file; SettingsError names every fault, BundleError where there is no such file."""
        if not path.is_file():
            known = ", ".join(planned()) or "none"
            raise BundleError(f"there is no plan {path}; models with a plan: {known}")
        plan = configured(cls, None, read_yaml(path))
        if not plan.data or plan.selection.seed in [one.seed for one in plan.data]:
            raise SettingsError(
                [f"{path}: `data` names one or more sets, and `selection` has a seed that none of them has"]
            )
        return plan

    @property
    def words(self) -> list[str]:
        """The settings as key=value texts."""
        return [f"{name}={value_text(value)}" for name, value in flat(self.settings)]

    @property
    def options(self) -> TrainOptions:
        """The options of the training."""
        return configured(TrainOptions, None, self.training)

    def render(self, root: Path) -> str:
        """Draw what is trained on below `root` and return NAME=PATH of it: one layout, or a manifest of several."""
        places = [one.render(root / str(number)) for number, one in enumerate(self.data)]
        layouts = [one.layout for one in self.data]
        if len(places) == 1:
            return f"{layouts[0]}={places[0]}"
        return f"manifest={write_manifest(root / MANIFEST, list(zip(layouts, places, strict=True)))}"

    def check_drawn(self, source: str | None) -> None:
        """BundleError unless a training read just these synthetic sets; `source` is its NAME=PATH."""
        name, _, path = str(source).partition("=")
        root = Path(path)
        many = name == "manifest"
        places = [root.parent / str(number) for number in range(len(self.data))] if many else [root]
        if len(places) != len(self.data) or not all(one.drawn_at(p) for one, p in zip(self.data, places, strict=True)):
            expected = "; ".join(map(str, self.data))
            raise BundleError(
                f"the plan trains on synthetic people alone ({expected}), the run was trained on {source}, which is "
                "not there or another set; change the plan, or train by it"
            )


def planned() -> list[str]:
    """The models that have a plan, sorted; one that was not made yet among them."""
    return sorted(path.parent.name for path in models.FOLDER.glob(f"*/{PLAN}"))


def plan_of(name: str) -> ModelPlan:
    """The plan of a model by name."""
    return ModelPlan.read(models.FOLDER / name / PLAN)


def write_manifest(path: Path, sets: Sequence[tuple[str, Path]]) -> Path:
    """One list of the rows that are trained on in several sets, whose people and cameras get numbers of their own."""
    lines, people, cameras = ["path,pid,camid,modality,split"], 0, 0
    for layout, place in sets:
        table = datasets.load(f"{layout}={place}")
        rows = table.where(training_splits(table))
        for name, pid, camid, modality in zip(rows.path, rows.pid, rows.camid, rows.modality, strict=True):
            inside = (table.root / str(name)).resolve().relative_to(path.parent.resolve()).as_posix()
            lines.append(f"{inside},{pid + people},{camid + cameras},{modality},train")
        people, cameras = people + int(table.pid.max()) + 1, cameras + int(table.camid.max()) + 1
    with replacing(path) as partial:
        partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path
