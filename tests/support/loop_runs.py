"""Runs of the small training: start one, stop it after an epoch, read its log, compare weights."""

import json
from pathlib import Path

import torch
from small_training import SmallData, small

from vireid.training.loop import train


def run(folder, method=None, **options):
    method = small() if method is None else method
    options = {"progress": False, **options}
    train(method, options.pop("data", None) or SmallData(), folder, **options)
    return method


def equal(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return list(a) == list(b) and all(torch.equal(a[name], b[name]) for name in a)


def records(folder: Path, event: str | None = None):
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if event in (None, line["event"])]


class Stop(Exception):
    pass


def stop_after(stage: int, epoch: int):
    def on_epoch(method, at):
        if (at.stage, at.epoch) == (stage, epoch):
            raise Stop

    return on_epoch
