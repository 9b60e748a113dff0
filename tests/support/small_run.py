"""A run folder with random weights, made in a second, and pictures of people who dress in one color each."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vireid.data import datasets
from vireid.data.table import Table
from vireid.deploy.onnx import examples
from vireid.methods import find
from vireid.training.record import describe
from vireid.training.run_folder import RunFolder
from vireid.training.settings import resolve

WORDS = ("width=4", "blocks=[1,1,1,1]", "size=[48,24]", "attention=false")
CAMERAS = {1: "visible", 2: "visible", 3: "infrared", 4: "infrared"}


def write_people(folder: Path, splits: dict[str, int], images: int = 2, seed: int = 0) -> Path:
    """`images` pictures of each person by each of four cameras, people of the splits one after the other."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.RandomState(seed)
    lines, pid = ["path,pid,camid,modality,split,frame"], 0
    for split, people in splits.items():
        for _ in range(people):
            colors = random.randint(40, 216, (4, 1, 3))
            for camera, modality in CAMERAS.items():
                for image in range(images):
                    pixels = np.repeat(colors, 16, 0) + random.randint(-30, 30, (64, random.randint(28, 36), 3))
                    pixels[:, :, 0] = np.clip(pixels[:, :, 0] + 60 * (modality == "visible"), 0, 255)
                    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
                    if modality == "infrared":
                        picture = picture.convert("L")
                    name = f"{pid}_{camera}_{image}.{'jpg' if image else 'png'}"
                    picture.save(folder / name)
                    lines.append(f"{name},{pid},{camera},{modality},{split},{image}")
            pid += 1
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def make_run(
    folder: Path,
    data: Path,
    method: str = "agw",
    held_out: tuple[int, ...] = (),
    seed: int = 0,
    words: tuple[str, ...] = WORDS,
    dataset: str = "manifest",
    trial: int | None = None,
) -> RunFolder:
    """What `vireid train` would leave, but for last.pt; batch norms have statistics of noise."""
    kind, split = find(method), {} if trial is None else {"trial": trial}
    table = datasets.load(f"{dataset}={data}", **split)
    recipes, settings = resolve(kind, dataset, words)
    rows = training_rows(table, held_out)
    torch.manual_seed(seed)
    model = kind(len(rows.pids), tuple(rows.camids.tolist()), settings)
    with torch.no_grad():
        size = recipes[-1].size
        images = torch.randint(0, 256, (8, 3, *size), dtype=torch.uint8)
        inputs = [torch.rand(8, *shape.shape[1:]) for shape in examples(model.embedder, size)]
        model.embedder.train()(images, torch.arange(8) % 2, *inputs)
    stamp = {
        "settings": dataclasses.asdict(settings),
        "source": {"data": f"{dataset}={data}", "trial": trial},
        "trained_on": ("train",),
        "held_out_pids": held_out,
    }
    record = describe(model, recipes, rows, stamp, seed=seed, precision="float32", checkpoint="last epoch")
    run = RunFolder.begin(folder, record)
    run.save_artifact(model.embedder)
    return run


def training_rows(table: Table, held_out: tuple[int, ...]) -> Table:
    rows = table.where("train")
    return rows[~np.isin(rows.pid, held_out)]
