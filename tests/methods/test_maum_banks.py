"""MAUM's banks in two processes: the same on both ranks, and those of one process."""

import sys
from dataclasses import replace
from pathlib import Path

import torch
from small_training import PIDS, pictures, torchrun
from torch import Tensor

from vireid import distributed
from vireid.method import Recipe
from vireid.methods.maum import MAUM
from vireid.training.loop import train


def trained(run: Path, root: Path) -> dict[str, Tensor]:
    """The state of a tiny part model in float64 after two epochs of three steps each."""
    torch.manual_seed(5)
    settings = {**MAUM.tiny, "snapshots_visible": 4, "snapshots_infrared": 9, "parts": 2, "part_dim": 6}
    method = MAUM(PIDS, (1, 2), **settings).double()  # pyright: ignore[reportArgumentType]
    assert isinstance(MAUM.recipe, Recipe)
    sampler = replace(MAUM.recipe.sampler, pids=4, images=2)  # pyright: ignore[reportArgumentType]
    own = replace(MAUM.recipe, size=(32, 16), epochs=2, sampler=sampler)
    train(method, pictures(root), run, recipes=own, progress=False)
    return method.state_dict()


def test_two_processes_hold_the_banks_of_one(tmp_path: Path) -> None:
    torchrun(str(Path(__file__)), str(tmp_path))
    one = trained(tmp_path / "one", tmp_path / "pictures")
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1))
    banks = [name for name in one if name.endswith(("snapshots", "pushed"))]
    assert len(banks) == 3 * 2 * 2  # branches, modalities, snapshots and counter
    for name in banks:
        assert first[name].equal(second[name]), name
        torch.testing.assert_close(first[name], one[name], rtol=1e-8, atol=1e-10, msg=name)
        assert int(one[name]) == 6 if name.endswith("pushed") else len(one[name].flatten(1).unique(dim=0)) >= 4
    assert torch.load(tmp_path / "two" / "last.pt", weights_only=True)["method"][banks[0]].equal(first[banks[0]])


if __name__ == "__main__":  # started by torchrun
    torch.set_num_threads(1)
    distributed.start()
    folder, rank = Path(sys.argv[1]), distributed.rank()
    torch.save(trained(folder / "two", folder / f"pictures{rank}"), folder / f"{rank}.pt")
    distributed.stop()
