"""Settings: what key=value words and YAML files change, and that every fault is told at once."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

import pytest
from pydantic import Field
from torch import nn

from vireid.errors import SettingsError
from vireid.method import Method, Recipe, View
from vireid.training.optim import SGD, Adam, WarmupSteps
from vireid.training.settings import describe, resolve, wording


@dataclass(frozen=True)
class Draw:
    pids: int = 8
    images: Annotated[int, Field(ge=1)] = 4
    ratio: float = 0.5

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


class One(Method):
    recipe = RECIPE

    def __init__(
        self,
        num_pids: int,
        camids: tuple[int, ...] = (),
        *,
        gamma: float = 1.0,
        blocks: tuple[int, ...] = (3, 4),
        mode: Literal["on", "off"] = "on",
        square: bool = True,
        name: str = "x",
        limit: int | None = None,
    ) -> None:
        super().__init__(num_pids, camids)
        self.embedder = nn.Identity()


class Child(One):
    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), *, extra: int = 3, **more: object) -> None:
        super().__init__(num_pids, camids, **more)  # pyright: ignore[reportArgumentType]


class Stages(One):
    recipe = (RECIPE, replace(RECIPE, epochs=5, optimizers={"late": SGD(lr=1.0)}))


class Clash(One):
    def __init__(self, num_pids: int, camids: tuple[int, ...] = (), *, epochs: int = 3) -> None:
        super().__init__(num_pids, camids)


def faults(method: type[Method], *words: str, file: Path | None = None) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        resolve(method, "sysu", words, file)
    return caught.value.faults


def test_words_change_keywords_and_recipe_and_leave_the_class_alone() -> None:
    words = """gamma=2 blocks=[1,1] mode=off name=2024 limit=null epochs=60 sampler.pids=4 size=[96,48]
        optimizers.backbone.lr=2e-2 optimizers.head.betas=[0.5,0.9] views.0.transform.steps.0.pad=3
        schedule.milestones=[5,8] optimizers.backbone.clip=1"""
    (recipe,), settings = resolve(One, "sysu", words.split())
    assert settings == {"gamma": 2.0, "blocks": (1, 1), "mode": "off", "square": True, "name": "2024", "limit": None}
    assert isinstance(settings["gamma"], float)
    assert (recipe.epochs, recipe.size, recipe.sampler) == (60, (96, 48), Draw(pids=4))
    assert recipe.optimizers["backbone"] == SGD(lr=0.02, clip=1.0)
    assert recipe.optimizers["head"] == Adam(lr=0.1, betas=(0.5, 0.9))
    assert recipe.views[0] == View(0, Chain((Crop(3), plain)))  # pyright: ignore[reportArgumentType]
    assert recipe.schedule == WarmupSteps(milestones=(5, 8))
    assert One.recipe.epochs == 80  # pyright: ignore[reportAttributeAccessIssue]


def test_nothing_given_is_the_default() -> None:
    assert resolve(One, "sysu")[0] == (RECIPE,)
    assert resolve(Child, "sysu")[1]["extra"] == 3
    assert resolve(Child, "sysu", ["gamma=3", "extra=4"])[1] | {} == {
        **resolve(One, "sysu")[1],
        "gamma": 3.0,
        "extra": 4,
    }


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
        "expected whole number, got many",
        "`sampler` is a group (Draw); set `sampler.pids`",
        "did you mean `schedule.milestones`",
        "`zzz` is unknown",
        "`foo` is not a setting",
        "`step` names a function",
    )
    for hint in hints:
        assert hint in text, hint


def test_ranges_of_annotations_and_of_dataclasses() -> None:
    assert "greater than or equal to 1" in faults(One, "sampler.images=0")[0]
    assert faults(One, "sampler.pids=1") == ["`sampler.pids`: Draw needs 2 people or more, got 1"]
    assert "a function" in faults(One, "views.1.transform=3")[0]


def test_the_same_key_twice() -> None:
    assert "given twice, as 3 and 4" in faults(One, "epochs=3", "epochs=4")[0]


def test_stages() -> None:
    first, second = resolve(Stages, "sysu", ["stages.1.epochs=7", "epochs=9", "optimizers.late.lr=2"])[0]
    assert (first.epochs, second.epochs) == (9, 7)
    assert second.optimizers["late"].lr == 2.0 and first.optimizers == RECIPE.optimizers
    assert "stages 0 to 1" in faults(Stages, "stages.2.epochs=1")[0]
    assert "is unknown" in faults(Stages, "stages.0.optimizers.late.lr=1")[0]


def test_a_keyword_named_like_a_recipe_field_is_refused() -> None:
    assert "names a constructor keyword `epochs` like a recipe field" in faults(Clash)[0]


def test_yaml_nested_and_dotted_and_words_win(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "gamma: 1e-3\nepochs: 7\nsampler: {pids: 4}\noptimizers.head.lr: 0.5\nviews:\n  0: {transform.steps.0.pad: 2}\n"
    )
    (recipe,), settings = resolve(One, "sysu", ["epochs=8"], file)
    assert settings["gamma"] == 0.001 and recipe.epochs == 8 and recipe.sampler == Draw(4)
    assert recipe.optimizers["head"].lr == 0.5
    file.write_text("- epochs: 1\n")
    assert "holds list" in faults(One, file=file)[0]
    file.write_text("stages:\n  - {epochs: 3}\n  - {epochs: 4}\n")
    assert [r.epochs for r in resolve(Stages, "sysu", (), file)[0]] == [3, 4]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("epochs: 1\nepochs: 2\n", "line 2: `epochs` is given twice"),
        ("sampler.pids: 1\nsampler: {pids: 2}\n", "nested and dotted"),
        ("epochs: [1\n", "expected YAML"),
        ("epoch: 3\nsampler: {pid: 2}\n", "did you mean `epochs`"),
        ("gamma: !!python/object/apply:os.system ['touch executed']\n", "expected YAML"),
        ("sampler:\n", "is a group"),
    ],
)
def test_bad_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.yaml").write_text(text)
    assert told in "\n".join(faults(One, file=Path("a.yaml")))
    assert not Path("executed").exists()
    assert "no settings file" in faults(One, file=Path("b.yaml"))[0]
    Path("c.yaml").write_bytes(b"\xff\xfe\x00")
    assert "not a text file" in faults(One, file=Path("c.yaml"))[0]


def test_describe_lists_every_setting_and_each_can_be_set() -> None:
    found = {s.name: s for s in describe(One, "sysu")}
    assert found["gamma"].type == "number" and found["gamma"].default == 1.0 and not found["gamma"].recipe
    assert found["optimizers.backbone.lr"].recipe and "views.0.transform.steps.0.pad" in found
    assert "step" not in found and "views.1.transform" not in found
    assert {s.name.split(".")[0] for s in describe(Stages, "sysu") if s.recipe} == {"stages"}


def test_wording() -> None:
    kinds = {
        tuple[int, int]: "list of 2 whole numbers",
        tuple[float, ...]: "list of numbers",
        list[str]: "list of text",
        float | None: "number or null",
        Annotated[int, Field(gt=0, le=9)]: "whole number > 0 <= 9",
        tuple[int, str]: "list of whole number, text",
        Literal["a", "b"]: "a or b",
    }
    assert {wording(kind): words for kind, words in kinds.items()} == {words: words for words in kinds.values()}
