"""Training from visible pictures alone finds people from infrared to visible, on synthetic people it has not seen."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from vireid.data import datasets
from vireid.data.table import Table
from vireid.errors import DataError
from vireid.evaluation.embed import embed
from vireid.evaluation.evaluate import evaluate
from vireid.synthetic.make import make
from vireid.types import INFRARED
from vireid.workflows.run import Run
from vireid.workflows.train import train

SIZE = (64, 32)
PROTOCOL = "sysu/all/single-shot"
SETTINGS = {"backbone": "lite0", "depth": 8, "freeze": 2, "frozen_norms": True, "attention": False, "size": SIZE}
SETTINGS |= {"pooling": "average", "stripes": 4, "unit_triplet": True, "sampler.pids": 8, "schedule": "cosine"}
SETTINGS |= {f"optimizers.{name}": "adamw" for name in ("backbone", "head")}
SETTINGS |= {"optimizers.backbone.lr": 0.0005, "optimizers.head.lr": 0.005}


@pytest.fixture(scope="module")
def withheld(tmp_path_factory: pytest.TempPathFactory) -> Table:
    """A small synthetic SYSU-MM01 without the infrared pictures of the people to train on."""
    folder = tmp_path_factory.mktemp("made") / "night"
    make(folder, "sysu", people=40, images_per_camera=2, size=SIZE, masks=False, workers=1)
    table = datasets.load(f"sysu={folder}")
    return table[(table.modality != INFRARED) | (table.split == "test")]


def fitted(table: Table, folder: Path, epochs: int, **words: object) -> Run:
    settings = {**SETTINGS, "epochs": epochs, **words}
    return train("agw", replace(table, source=""), folder, weights="imagenet", device="cpu", progress=False, **settings)


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
def test_a_short_training_beats_its_start(withheld: Table, tmp_path: Path) -> None:
    # With seeds 0, 1 and 2 mAP on the other people is 1.4, 2.2 and 2.8 points above the 20.5 of the start.
    runs = [fitted(withheld, tmp_path / f"{epochs} epochs", epochs, pseudo_infrared=True) for epochs in (0, 8)]
    test = withheld.where("test")
    protocol = datasets.protocol(PROTOCOL, test)
    before, after = (evaluate(embed(run.embedder(), test, SIZE, progress=False), protocol).mean["mAP"] for run in runs)
    assert runs[1].record.stamp["infrared in training"] == "made of visible pictures"
    assert after > before, (before, after)


def test_without_the_setting_training_says_which_one_helps(withheld: Table, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pseudo_infrared=true trains on visible images alone"):
        fitted(withheld, tmp_path / "run", 1)
    assert not (tmp_path / "run").exists()


def test_people_without_infrared_pictures_cannot_choose_the_epoch(withheld: Table, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="they have no infrared picture; leave --select out"):
        fitted(withheld, tmp_path / "run", 1, pseudo_infrared=True, select="heldout", holdout=3)
