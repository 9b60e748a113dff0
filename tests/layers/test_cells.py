"""The network of cells: means of a grid, instance norm, several layers, and what does not fit."""

from __future__ import annotations

import pytest
import torch

from vireid.errors import ArgumentError, SettingsError
from vireid.layers.cells import CellNetwork, Cells


def test_cells_are_means_of_the_grid() -> None:
    maps = torch.randn(2, 5, 8, 4)
    out = Cells(4, 2, instance_norm=False)(maps).view(2, 5, 4, 2)
    assert torch.allclose(out[1, 3, 2, 1], maps[1, 3, 4:6, 2:4].mean(), atol=1e-6)


def test_instance_norm_takes_level_and_contrast_of_each_channel_away() -> None:
    maps = torch.randn(2, 5, 8, 4)
    cells = Cells(4, 2, instance_norm=True)
    changed = maps * (1 + torch.rand(2, 5, 1, 1)) * 50 + torch.randn(2, 5, 1, 1)
    assert torch.allclose(cells(maps * 50), cells(changed), atol=1e-3)
    assert not torch.allclose(cells(maps), cells(maps.flip(2)), atol=0.1)


def test_a_grid_that_does_not_divide_the_maps_is_an_error() -> None:
    with pytest.raises(ArgumentError, match="maps of 8 x 4 cannot be cut into 3 x 2 equal cells"):
        Cells(3, 2, instance_norm=False)(torch.zeros(1, 1, 8, 4))


def test_several_layers_count_by_their_size() -> None:
    network = CellNetwork(depth=8, cells=((2, 16, 2), (3, 8, 2))).eval()
    images, modality = torch.randint(0, 256, (3, 3, 128, 64), dtype=torch.uint8), torch.tensor([0, 1, 1])
    with torch.no_grad():
        layers = network.layers(network.normalize(images), modality)
    early, late = 40 * 32, 80 * 16
    assert layers["pooled"].shape == layers["neck"].shape == (3, network.dim) == (3, early + late)
    norms = [part.norm(dim=1) for part in layers["pooled"].split([early, late], 1)]
    assert torch.allclose(norms[0], torch.tensor(float(early)).sqrt()) and torch.allclose(
        norms[1], torch.tensor(float(late)).sqrt()
    )


def test_there_are_four_layers() -> None:
    with pytest.raises(SettingsError, match="cells"):
        CellNetwork(cells=((5, 8, 2),))
