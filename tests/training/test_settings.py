"""Settings: what key=value words and YAML files change, and that every fault is reported at once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal, Self

import pytest
from pydantic import Field, model_validator

from vireid.declaration import REQUIRED, Count, Number, settings, value_text, wording
from vireid.errors import ArgumentError, SettingsError
from vireid.method import Method, Recipe, View
from vireid.training.optim import SGD, Adam, AdamW, Constant, Cosine, Steps, WarmupSteps
from vireid.training.settings import describe, resolve


@dataclass(frozen=True)
class Draw:
    pids: int = 8
    images: Annotated[int, Field(ge=1)] = 4
    ratio: float = 0.5
    odds: dict[str, float] = field(default_factory=lambda: {"day": 1.0, "night": 2.0})

    def __post_init__(self) -> None:
        if self.pids < 2:
            raise ValueError(f"Draw needs 2 people or more, got {self.pids}")


@dataclass(frozen=True)
class Crop:
    pad: int = 10


@dataclass(frozen=True)
class Chain:
    steps: tuple[object, ...]


def plain(sample: dict, generator: object) -> dict:
    return sample


RECIPE = Recipe(
    size=(288, 144),
    sampler=Draw(),  # pyright: ignore[reportArgumentType]
    views=(View(0, Chain((Crop(), plain))), View(1, plain)),  # pyright: ignore[reportArgumentType]
    epochs=80,
    optimizers={"backbone": SGD(lr=0.01), "head": Adam(lr=0.1)},
    schedule=WarmupSteps(),
)


@settings
class OneSettings:
    gamma: Number = 1.0
    """Weight of the second loss."""
    blocks: tuple[Count, ...] = (3, 4)
    mode: Literal["on", "off"] = "on"
    square: bool = True
    name: str = "x"
    limit: Count | None = None


@settings
class ChildSettings(OneSettings):
    extra: Count = 3

    @model_validator(mode="after")
    def fitting(self) -> Self:
        if self.extra > 9 and not self.square:
            raise ArgumentError("extra > 9 needs square=true")
        return self


@settings
class ClashSettings:
    epochs: Count = 3


@settings
class NeedySettings:
    base: Path
    """Folder of another run."""
    gamma: Number = 1.0


class One(Method):
    recipe = RECIPE
    Settings = OneSettings


class Child(One):
    Settings = ChildSettings


class Stages(One):
    recipe = (RECIPE, replace(RECIPE, epochs=5, optimizers={"late": SGD(lr=1.0)}))


class Clash(One):
    Settings = ClashSettings


class Needy(One):
    Settings = NeedySettings


class Keywords(Method):
    recipe = RECIPE

    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), *, width: int = 64, margin: float = 0.3) -> None:
        super().__init__(num_pids, camids)


class Undeclared(One):
    @dataclass(frozen=True)
    class Settings:
        width: int = 64


def faults(method: type[Method], *words: str, file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        resolve(method, "sysu", words, file)
    return caught.value.faults


def test_words_change_keywords_and_recipe_and_leave_the_class_alone() -> None:
    words = """gamma=2 blocks=[1,1] mode=off name=2024 limit=null epochs=60 sampler.pids=4 size=[96,48]
        optimizers.backbone.lr=2e-2 optimizers.head.betas=[0.5,0.9] views.0.transform.steps.0.pad=3
        schedule.milestones=[5,8] optimizers.backbone.clip=1"""
    (recipe,), given = resolve(One, "sysu", words.split())
    assert given == OneSettings(gamma=2.0, blocks=(1, 1), mode="off", square=True, name="2024", limit=None)
    assert isinstance(given.gamma, float)
    assert (recipe.epochs, recipe.size, recipe.sampler) == (60, (96, 48), Draw(pids=4))
    assert recipe.optimizers["backbone"] == SGD(lr=0.02, clip=1.0)
    assert recipe.optimizers["head"] == Adam(lr=0.1, betas=(0.5, 0.9))
    assert recipe.views[0] == View(0, Chain((Crop(3), plain)))  # pyright: ignore[reportArgumentType]
    assert recipe.schedule == WarmupSteps(milestones=(5, 8))
    assert One.recipe.epochs == 80  # pyright: ignore[reportAttributeAccessIssue]


def test_nothing_given_is_the_default() -> None:
    assert resolve(One, "sysu") == ((RECIPE,), OneSettings())
    assert resolve(Child, "sysu", ["gamma=3", "extra=4"])[1] == ChildSettings(gamma=3.0, extra=4)


def test_words_that_yaml_would_read_as_another_kind() -> None:
    given = resolve(One, "sysu", ["mode=on", "name=1e3", "square=off", "gamma=1e-3", "limit=7"])[1]
    assert given == OneSettings(mode="on", name="1e3", square=False, gamma=0.001, limit=7)
    given = resolve(One, "sysu", ["name=2024-01-05", "limit=~"])[1]
    assert (given.name, given.limit) == ("2024-01-05", None)


def test_parts_that_are_plain_dataclasses() -> None:
    words = ["sampler.ratio=1", "sampler.odds.night=3", "views.0.transform.steps.0.pad=2"]
    (recipe,), _ = resolve(One, "sysu", words)
    assert recipe.sampler == Draw(ratio=1.0, odds={"day": 1.0, "night": 3.0})
    assert recipe.step == "step" and RECIPE.sampler == Draw()
    for word in ("sampler.pids=true", "sampler.ratio=.nan", "sampler.odds.day=much", "views.0.transform.steps.0.pad=x"):
        name = word.partition("=")[0].removesuffix(".day")
        assert f"`{name}`: expected" in faults(One, word)[0]


@pytest.mark.parametrize("text", ["true", "many", "[1]", "null", ".nan", ".inf", "nan", "1,5"])
@pytest.mark.parametrize("key", ["gamma", "epochs", "optimizers.backbone.lr"])
def test_no_number_is_no_number(key: str, text: str) -> None:
    (fault,) = faults(One, f"{key}={text}")
    assert f"`{key}`" in fault and "number" in fault and text in fault


@pytest.mark.parametrize(
    "word", ["epochs=1.5", "square=3", "size=[1,2,3]", "size=144", "mode=auto", "blocks=[1,x]", "name=[1]"]
)
def test_wrong_types(word: str) -> None:
    (fault,) = faults(One, word)
    assert f"`{word.partition('=')[0]}`: expected" in fault and word.partition("=")[2] in fault


def test_every_fault_is_told_at_once_with_the_closest_name() -> None:
    found = faults(
        One,
        "gama=2",
        "lr=0.1",
        "sampler.pid=4",
        "epochs=many",
        "sampler=3",
        "schedule.milestons=[1]",
        "zzz=1",
        "foo",
        "step=x",
    )
    text = "\n".join(found)
    assert len(found) == 9
    hints = (
        "did you mean `gamma`",
        "`optimizers.backbone.lr` or `optimizers.head.lr`",
        "did you mean `sampler.pids`",
        "expected whole number >= 0, got many",
        "`sampler` is a group (Draw); set `sampler.pids`, `sampler.images`",
        "did you mean `schedule.milestones`",
        "`zzz` is unknown",
        "`foo` is not a setting",
        "`step` names a function",
    )
    for hint in hints:
        assert hint in text, hint


def test_ranges_of_annotations_and_of_dataclasses() -> None:
    assert "greater than or equal to 1" in faults(One, "sampler.images=0")[0]
    assert faults(One, "sampler.pids=1") == ["`sampler`: Draw needs 2 people or more, got 1"]
    assert "a function" in faults(One, "views.1.transform=3")[0]


def test_the_same_key_twice() -> None:
    assert "given twice, as 3 and 4" in faults(One, "epochs=3", "epochs=4")[0]


def test_stages() -> None:
    first, second = resolve(Stages, "sysu", ["stages.1.epochs=7", "epochs=9", "optimizers.late.lr=2"])[0]
    assert (first.epochs, second.epochs) == (9, 7)
    assert second.optimizers["late"].lr == 2.0 and first.optimizers == RECIPE.optimizers
    assert "stages 0 to 1" in faults(Stages, "stages.2.epochs=1")[0]
    assert "is unknown" in faults(Stages, "stages.0.optimizers.late.lr=1")[0]


def test_a_check_across_fields() -> None:
    assert faults(Child, "extra=10", "square=off", "gama=1")[1] == "extra > 9 needs square=true"
    assert resolve(Child, "sysu", ["extra=10"])[1].extra == 10


def test_a_setting_without_default() -> None:
    assert faults(Needy) == ["`base` has no default: give base=(path)"]
    assert faults(Needy, "gama=1")[0].startswith("`gama` is unknown")
    assert resolve(Needy, "sysu", ["base=2024"])[1].base == Path("2024")
    assert {one.name: one.default for one in describe(Needy, "sysu")}["base"] is REQUIRED


def test_a_setting_named_like_a_recipe_field_is_refused() -> None:
    assert "names its setting `epochs` like a recipe field" in faults(Clash)[0]


def test_settings_that_are_not_declared() -> None:
    (fault,) = faults(Keywords)
    assert "Keywords has width, margin as keywords of its constructor" in fault
    assert "@vireid.declaration.settings" in fault and "docs/learn/add-a-method.md" in fault
    assert "Undeclared has Settings undeclared" in faults(Undeclared, "width=3")[0]


def test_yaml_nested_and_dotted_and_words_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "gamma: 1e-3\nepochs: 7\nsampler: {pids: 4}\noptimizers.head.lr: 0.5\nviews:\n  0: {transform.steps.0.pad: 2}\n"
    )
    (recipe,), given = resolve(One, "sysu", ["epochs=8"], file)
    assert given.gamma == 0.001 and recipe.epochs == 8 and recipe.sampler == Draw(4)
    assert recipe.optimizers["head"].lr == 0.5
    file.write_text("- epochs: 1\n")
    assert "holds a list" in faults(One, file=file)[0]
    file.write_text("mode: on\nname: 2024\nblocks:\n- 1\n- 2\nsampler:\n  <<: {pids: 2, images: 5}\n  images: 6\n")
    (recipe,), given = resolve(One, "sysu", (), file)
    assert given == OneSettings(mode="on", name="2024", blocks=(1, 2)) and recipe.sampler == Draw(2, 6)
    file.write_text("stages:\n  1: {epochs: 3}\nsampler.pids: 9\n")
    assert [r.epochs for r in resolve(Stages, "sysu", ["epochs=6"], file)[0]] == [6, 6]
    file.write_text("stages:\n  - {epochs: 3}\n  - {epochs: 4}\n")
    assert [r.epochs for r in resolve(Stages, "sysu", (), file)[0]] == [3, 4]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("gamma: 1\nepochs: many\n", "a.yaml line 2: `epochs`: expected whole number >= 0, got many"),
        ("sampler:\n  pids: 4\n  images: 0\n", "a.yaml line 3: `sampler.images`: expected whole number >= 1, got 0"),
        ("sampler:\n  pid: 4\n", "a.yaml line 2: `sampler.pid` is unknown; did you mean `sampler.pids`"),
        ("gamma: 2\n\nblocks: [1, x]\n", "a.yaml line 3: `blocks`: expected list of whole numbers >= 1, got [1,x]"),
        ("epochs: 1\nepochs: 2\n", "line 2: `epochs` is given twice"),
        ("sampler.pids: 1\nsampler: {pids: 2}\n", "nested and dotted"),
        ("epochs: [1\n", "expected YAML"),
        ("epoch: 3\nsampler: {pid: 2}\n", "did you mean `epochs`"),
        ("gamma: !!python/object/apply:os.system ['touch executed']\n", "expected YAML"),
        ("sampler:\n", "is a group"),
    ],
)
def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(text)
    assert message in "\n".join(faults(One, file=Path("a.yaml")))
    assert not Path("executed").exists()
    assert "no settings file" in faults(One, file=Path("b.yaml"))[0]
    Path("c.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in faults(One, file=Path("c.yaml"))[0]


def test_describe_lists_every_setting_and_each_can_be_set() -> None:
    found = {s.name: s for s in describe(One, "sysu")}
    assert (found["gamma"].type, found["gamma"].default, found["gamma"].stage) == ("number", 1.0, None)
    assert found["gamma"].documentation == "Weight of the second loss."
    assert found["optimizers.backbone.lr"].stage == 0 and "views.0.transform.steps.0.pad" in found
    assert found["optimizers.backbone.lr"].documentation.startswith("Learning rate")
    assert found["sampler.pids"].documentation == ""  # a plain dataclass
    assert "step" not in found and "views.1.transform" not in found
    stages = [s for s in describe(Stages, "sysu") if s.stage is not None]
    assert {s.stage for s in stages} == {0, 1}
    assert all(s.name.startswith(f"stages.{s.stage}.") for s in stages)
    for name, one in found.items():
        resolve(One, "sysu", [f"{name}={value_text(one.default)}"])


def test_wording() -> None:
    kinds = {
        tuple[int, int]: "list of 2 whole numbers",
        tuple[float, ...]: "list of numbers",
        list[str]: "list of text",
        float | None: "number or null",
        Mapping[str, int]: "names and values",
        Annotated[int, Field(gt=0, le=9)]: "whole number > 0 and <= 9",
        tuple[int, str]: "list of whole number, text",
        Literal["a", "b"]: "a or b",
    }
    assert {wording(kind): words for kind, words in kinds.items()} == {words: words for words in kinds.values()}


def test_kinds_by_name_keep_rate_clipping_and_warm_up() -> None:
    words = [
        "optimizers.backbone=adamw",
        "optimizers.backbone.weight_decay=0.1",
        "schedule=cosine",
        "schedule.final=0.1",
    ]
    (recipe,), _ = resolve(One, "sysu", ["optimizers.backbone.clip=2", *words])
    assert recipe.optimizers["backbone"] == AdamW(lr=0.01, weight_decay=0.1, clip=2.0)
    assert recipe.optimizers["head"] == Adam(lr=0.1)
    assert recipe.schedule == Cosine(warmup_epochs=10, final=0.1)
    assert One.recipe.schedule == WarmupSteps()  # pyright: ignore[reportAttributeAccessIssue]
    assert resolve(One, "sysu", ["optimizers.backbone=sgd", "schedule=warmup-steps"])[0] == (RECIPE,)
    first, second = resolve(Stages, "sysu", ["schedule=constant", "stages.1.schedule=steps"])[0]
    assert first.schedule == Constant() and second.schedule == Steps()


def test_kinds_in_a_file_and_their_faults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("schedule: cosine\noptimizers.head: sgd\noptimizers.head.momentum: 0.5\n")
    (recipe,), _ = resolve(One, "sysu", (), file)
    assert recipe.schedule == Cosine(warmup_epochs=10) and recipe.optimizers["head"] == SGD(lr=0.1, momentum=0.5)
    file.write_text("epochs: 3\nschedule: cosin\n")
    fault = f"{file} line 2: `schedule`: expected constant or steps or iteration-steps or warmup-steps or cosine"
    assert faults(One, file=file)[0].startswith(fault) and "got cosin" in faults(One, file=file)[0]
    assert "expected sgd or adam or adamw, got 3" in faults(One, "optimizers.head=3")[0]
    assert "`optimizers.tail` is unknown" in faults(One, "optimizers.tail=sgd")[0]
    assert "did you mean `schedule.final`" in faults(One, "schedule=cosine", "schedule.finl=1")[0]
    assert "`schedule.milestones` is unknown" in faults(One, "schedule=cosine", "schedule.milestones=[3]")[0]


def test_describe_names_the_kinds() -> None:
    shown = {one.name: one for one in describe(One, "sysu")}
    assert (shown["optimizers.backbone"].default, shown["schedule"].default) == ("sgd", "warmup-steps")
    assert shown["optimizers.backbone"].type == "sgd or adam or adamw" and shown["schedule"].is_kind
    assert not shown["schedule.milestones"].is_kind
    other = {one.name for one in describe(One, "sysu", ["schedule=cosine"])}
    assert "schedule.final" in other and "schedule.milestones" not in other
