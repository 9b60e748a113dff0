"""The plan of a comparison: a YAML file of plain data.

seeds: 3
protocols: [sysu/all/single-shot, manifest/infrared-to-visible/ignore-frame]
methods:
  agw:                                  # how the table calls the line
    settings: {width: 16, size: [96, 48]}
    for: {sysu: {epochs: 4}, manifest: {epochs: 9}}     # more settings by kind of data set; these win
  no attention:
    method: agw                         # a method's name or file, where the line is called otherwise
    settings: {attention: false}
    seeds: 1                            # fewer than the others, where a method takes long
  nformer:
    settings: {base: "run:agw"}         # the run folder of another line: same data, same seed
    note: sees all queries at once      # printed below the table
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from vireid.declaration import value_text
from vireid.errors import SettingsError
from vireid.training.key_values import flat, read_yaml

OF_RUN = "run:"  # a setting that names another line's run


class Entry(BaseModel):
    """One line of the table: which method, with which settings, from which weights."""

    model_config = ConfigDict(extra="forbid")

    method: str = ""
    settings: dict[str, Any] = {}
    on: dict[str, dict[str, Any]] = Field(default={}, alias="for")  # by kind of data set
    weights: str | None = None
    seeds: int | None = Field(default=None, ge=1)  # where a line takes fewer than the plan
    note: str = ""

    def words(self, dataset: str, extra: Sequence[str], runs: Mapping[str, Path]) -> list[str]:
        """key=value words for this kind of data set; `runs` are the folders that "run:NAME" stands for."""
        settings = {**dict(flat(self.settings)), **dict(flat(self.on.get(dataset, {})))}
        settings |= {
            key: str(runs[value.removeprefix(OF_RUN)]) for key, value in settings.items() if _is_reference(value)
        }
        given = {word.partition("=")[0].strip() for word in extra}
        return [*(f"{key}={value_text(value)}" for key, value in settings.items() if key not in given), *extra]

    @property
    def bases(self) -> set[str]:
        """The lines whose runs this one needs."""
        values = [value for part in (self.settings, *self.on.values()) for _, value in flat(part)]
        return {value.removeprefix(OF_RUN) for value in values if _is_reference(value)}


class Plan(BaseModel):
    """What is compared."""

    model_config = ConfigDict(extra="forbid")

    seeds: int = Field(default=3, ge=1)
    protocols: tuple[str, ...] = ()
    methods: dict[str, Entry]

    @classmethod
    def read(cls, path: Path) -> Plan:
        """A plan from a YAML file; SettingsError names every fault."""
        try:
            plan = cls.model_validate(read_yaml(path))
        except ValidationError as error:
            raise SettingsError([f"{path}, {_place(e['loc'])}: {e['msg']}" for e in error.errors()]) from error
        unknown = sorted({base for entry in plan.methods.values() for base in entry.bases} - set(plan.methods))
        if unknown:
            raise SettingsError([f"{path}: `{OF_RUN}{name}` names no line of the plan" for name in unknown])
        if twice := [name for name, e in plan.methods.items() if any(plan.methods[b].bases for b in e.bases)]:
            raise SettingsError([f"{path}: `{name}` needs a run that itself needs one" for name in twice])
        return plan

    def only(self, names: Sequence[str]) -> Plan:
        """The plan with only these lines, and those whose runs they need; names of no line are methods as they are."""
        if not names:
            return self
        chosen = {name: self.methods.get(name, Entry()) for name in names}
        needed = {base: self.methods[base] for entry in chosen.values() for base in entry.bases}
        return self.model_copy(update={"methods": {**{k: v for k, v in needed.items() if k not in chosen}, **chosen}})


def _is_reference(value: object) -> bool:
    return isinstance(value, str) and value.startswith(OF_RUN)


def _place(where: Sequence[int | str]) -> str:
    return ".".join(map(str, where)) or "file"
