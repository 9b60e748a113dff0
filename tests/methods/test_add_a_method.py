"""The method written out in docs/learn/add-a-method.md is found, built and takes steps."""

import re
from dataclasses import asdict
from pathlib import Path

import torch
from small_batch import TINY, batch

from vireid.method import Progress, Recipe
from vireid.methods import find
from vireid.training.optim import Optimizers
from vireid.training.settings import resolve

PAGE = Path(__file__).parents[2] / "docs" / "learn" / "add-a-method.md"


def test_the_page_holds_a_complete_method(tmp_path: Path) -> None:
    found = re.search(r"cat > mine.py <<'END'\n(.*?)^END$", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert found is not None
    path = tmp_path / "mine.py"
    path.write_text(found[1])
    kind = find(path)
    (recipe,), settings = resolve(kind, "sysu", ["weight=0.2", "sampler.pids=4"])
    assert isinstance(recipe, Recipe) and settings.weight == 0.2
    torch.manual_seed(0)
    method, given, at = kind(4, **{**asdict(settings), **TINY}), batch(), Progress(epoch=10)
    optim = Optimizers(method.params(), recipe)
    totals = []
    for _ in range(5):
        totals.append(sum(float(loss.detach()) for loss in method.step(given, optim, at).values()))
    assert totals[-1] < totals[0]
