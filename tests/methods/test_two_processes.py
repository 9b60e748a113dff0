"""Two processes on half the people each take the same steps as one process, for every method that reads pictures.

One that refines the embeddings of a base makes its own batches: NFormer's test of this is in test_nformer_run.py.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from vireid import distributed
from vireid.declaration import defaults
from vireid.method import Batch, Method, Progress, Recipe
from vireid.methods import find, names
from vireid.training.optim import Optimizers
from vireid.training.settings import settings_class

PIDS, STEPS = 4, 3
ROWS = {"hicmd": 3}  # of a person: its image and two of negatives; else two
TINY = {"width": 4, "blocks": (1, 1, 1, 1)}
SINGLE = {"erase": 0.0}  # what is erased is drawn by each process for itself


def reading() -> list[str]:
    """The methods whose batches are pictures."""
    return [name for name in names() if "base" not in defaults(settings_class(find(name)))]


def batch(recipe: Recipe, step: int, rank: int, world: int, rows: int) -> Batch:
    """Noise, heat maps too; every rank takes its share of the people of each view."""
    label = torch.arange(PIDS).repeat_interleave(rows)
    generator = torch.Generator().manual_seed(step)
    images = torch.randn(len(recipe.views), len(label), 3, 64, 32, dtype=torch.float64, generator=generator)
    share = slice(rank * len(label) // world, (rank + 1) * len(label) // world)
    own = label[share]
    modality = torch.tensor([view.modality for view in recipe.views]).repeat_interleave(len(own))
    view = torch.arange(len(recipe.views)).repeat_interleave(len(own))
    maps = torch.rand(len(recipe.views), len(label), 18, 16, 8, dtype=torch.float64, generator=generator)
    extras = {"heatmaps": maps[:, share].flatten(0, 1)}
    return Batch(images[:, share].flatten(0, 1), own.repeat(len(recipe.views)), modality + 1, modality, view, extras)


def steps(name: str) -> dict[str, Tensor]:
    """The method's state after a few steps per stage."""
    kind = find(name)
    settings = {k: v for k, v in {**(kind.tiny or TINY), **SINGLE}.items() if k in defaults(settings_class(kind))}
    torch.manual_seed(0)
    method: Method = kind(PIDS, (1, 2), **settings).double().train()
    for part in method.modules():
        if isinstance(part, torch.nn.Dropout):
            part.p = 0.0  # what is dropped is drawn by each process for itself
    rank, world = distributed.rank(), distributed.world()
    if world > 1:
        distributed.convert_batchnorm(method)
    recipes = kind.recipe if isinstance(kind.recipe, tuple) else (kind.recipe,)
    for stage, recipe in enumerate(recipes):
        optim = Optimizers(method.params(), recipe)
        for step in range(STEPS):
            at = Progress(stage, 0, step, 1, STEPS)
            getattr(method, recipe.step)(batch(recipe, step, rank, world, ROWS.get(name, 2)), optim, at)
            method.after_step(at)
    return method.state_dict()


@pytest.fixture(scope="module")
def by_two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("two")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([sys.executable, *launcher, __file__, str(folder)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", reading())
def test_two_processes_equal_one(name: str, by_two: Path) -> None:
    found = torch.load(by_two / f"{name}.pt", weights_only=True)
    for key, value in steps(name).items():
        torch.testing.assert_close(found[key], value, rtol=1e-7, atol=1e-9, msg=lambda text, key=key: f"{key}: {text}")


if __name__ == "__main__":
    torch.set_num_threads(1)
    distributed.start()
    for method_name in reading():
        state = steps(method_name)
        if distributed.is_main():
            torch.save(state, Path(sys.argv[1]) / f"{method_name}.pt")
    distributed.stop()
