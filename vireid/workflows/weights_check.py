"""`vireid weights check`: what a file of weights is, how it is laid out, and which networks of vireid it fits."""

from __future__ import annotations

import typing
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vireid import methods
from vireid.errors import SettingsError, VireidError
from vireid.layers.backbones.choice import BackboneName, BackboneSettings
from vireid.layers.public_weights import ENTRIES
from vireid.layers.weights_file import WeightsFile, read
from vireid.method import Method
from vireid.system import file_digest
from vireid.training.settings import resolve
from vireid.workflows.initial_weights import file_of

MAX_NAMES, MAX_PARTS = 3, 8  # of tensors, or of parts of a network, in a line
CLASSIFIER = "classifier.weight"  # (people, D) in the released code of the AGW family
PEOPLE = 395  # of SYSU-MM01's training set, where a file does not say how many it knows
PLACES = {"stem.": ("stem.",), "layer": ("layer",)}  # of a backbone's parts in itself


@dataclass(frozen=True)
class Fit:
    """Whether a network takes the tensors of a file."""

    network: str  # a method, or the setting of a backbone
    whole: bool = False  # whether all of the network is filled, and not its backbone alone
    unused: tuple[str, ...] = ()
    why_not: str = ""  # empty where it fits


@dataclass(frozen=True)
class WeightsReport:
    """What `check` found out about a file."""

    file: WeightsFile
    sha256: str
    fits: tuple[Fit, ...]
    why_not: str = ""  # of a method that was named

    @property
    def ok(self) -> bool:
        """Whether a network takes the file."""
        return bool(self.fits)

    def lines(self) -> Iterator[str]:
        """The report for people to read."""
        file, tensors = self.file, self.file.tensors
        rows = [
            ("file", str(file.path)),
            ("kind", file.layout),
            ("size", f"{file.path.stat().st_size:,} bytes"),
            ("sha256", self.sha256),
            ("public", ", ".join(e.name for e in ENTRIES if e.sha256 and self.sha256.startswith(e.sha256))),
            ("tensors", f"{len(tensors)} with {sum(t.numel() for t in tensors.values()):,} numbers: {first(tensors)}"),
            ("left out", grouped(file.left_out)),
            ("beside", first(file.beside)),
        ]
        for word, text in rows:
            if text:
                yield f"{word:<9} {text}"
        for fit in self.fits:
            part = "the whole network" if fit.whole else "what a training starts from"
            unused = f"; {len(fit.unused)} tensors not used: {grouped(fit.unused)}" if fit.unused else ""
            yield f"{'fits':<9} {fit.network}: {part}{unused}"
        if not self.ok:
            yield (
                self.why_not or f"{'fits':<9} no network of vireid with its default settings; name METHOD and settings"
            )


def first(names: Iterable[str]) -> str:
    """The first names, and dots for the others."""
    listed = list(names)
    return ", ".join(listed[:MAX_NAMES]) + (" ..." if len(listed) > MAX_NAMES else "")


def grouped(names: Iterable[str]) -> str:
    """A few names; of more the parts that they belong to, with their numbers.

    >>> grouped(["fc.weight", "fc.bias"]), grouped([f"a.b.{i}" for i in range(9)])
    ('fc.weight, fc.bias', 'a.b (9)')
    """
    listed = list(names)
    if len(listed) <= MAX_NAMES:
        return ", ".join(listed)
    counts = Counter(".".join(name.split(".")[:2]) for name in listed)
    return ", ".join(f"{part} ({count})" for part, count in counts.most_common(MAX_PARTS)) + (
        " ..." if len(counts) > MAX_PARTS else ""
    )


def check(source: str | Path, method: str | None = None, overrides: Sequence[str] = ()) -> WeightsReport:
    """Read weights and try them on every network, or on that of one method with its settings; nothing is trained.

    Raises WeightsError for a file that is something else, and what `file_of` raises.
    """
    file = read(file_of(source))
    fits = [method_fit(file, method, overrides)] if method else all_fits(file)
    why_not = fits[0].why_not if method else ""
    return WeightsReport(file, file_digest(file.path), tuple(fit for fit in fits if not fit.why_not), why_not)


def all_fits(file: WeightsFile) -> list[Fit]:
    """Every backbone and every method with its default settings; methods that share a result share a line."""
    backbones = [backbone_fit(name, file.tensors) for name in typing.get_args(BackboneName)]
    by_result: dict[Fit, list[str]] = {}
    for name in methods.names():
        fit = method_fit(file, name)
        if fit.whole or not any(not one.why_not for one in backbones):
            result = Fit("", fit.whole, tuple(sorted(fit.unused)), "no" if fit.why_not else "")
            by_result.setdefault(result, []).append(name)
    merged = [Fit(", ".join(names), r.whole, r.unused, r.why_not) for r, names in by_result.items()]
    return [*merged, *backbones]


def backbone_fit(name: BackboneName, state: dict[str, Tensor]) -> Fit:
    """Whether a backbone takes the tensors."""
    backbone, label = BackboneSettings(backbone=name).chosen(), f"backbone={name}"
    with torch.device("meta"):
        parts = {f"layer{number}": stage for number, stage in enumerate(backbone.stages(), 1)}
        network = nn.ModuleDict({"stem": backbone.stem(), **parts})
    try:
        unused = backbone.fill(network, state, PLACES)
    except VireidError as error:
        return Fit(label, why_not=str(error))
    return Fit(label, why_not="other names") if unused is None else Fit(label, unused=tuple(unused))


def method_fit(file: WeightsFile, method: str | type[Method[Any]], overrides: Sequence[str] = ()) -> Fit:
    """Whether the network of a method takes the tensors; the network is built without memory for its weights."""
    state = {key: value.to("meta") for key, value in file.tensors.items()}
    kind = method if isinstance(method, type) else methods.find(method)
    name = kind.__name__ if isinstance(method, type) else method
    people = len(state[CLASSIFIER]) if CLASSIFIER in state else PEOPLE
    try:
        built = empty(kind, people, overrides)
        unused = built.load_weights(state)
    except SettingsError as error:
        if overrides:
            raise
        return Fit(name, why_not=f"{name}: {error}")  # it needs a setting, such as the run that it refines
    except VireidError as error:
        return Fit(name, why_not=f"{name}: {error}")
    deployed = weights_of(name for part in built.artifacts().values() for name in part.state_dict())
    return Fit(name, len(weights_of(state) - set(unused)) >= len(deployed), tuple(unused))


def weights_of(names: Iterable[str]) -> set[str]:
    """The names without those of counters, which old files do not have."""
    return {name for name in names if not name.endswith("num_batches_tracked")}


def empty(kind: type[Method[Any]], people: int, overrides: Sequence[str]) -> Method[Any]:
    """A method for this number of people whose tensors have shapes and no values."""
    _, settings = resolve(kind, "sysu", list(overrides), None)
    with torch.device("meta"):
        return kind(people, (1, 2, 3, 4, 5, 6), **asdict(settings))
