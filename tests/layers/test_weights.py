"""Copying weights into a module: all or nothing, with the names that are missing, of another shape or not used."""

import pytest
import torch
from torch import nn

from vireid.layers.weights import fill

STATE = {"a.weight": torch.arange(6.0).view(2, 3), "a.bias": torch.ones(2)}


def test_fill_is_strict_and_reports_what_is_left() -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 2)})
    assert fill(module, {**STATE, "b": torch.zeros(1)}) == ["b"]
    assert all(module.state_dict()[k].equal(v) for k, v in STATE.items())
    before = {k: v.clone() for k, v in module.state_dict().items()}
    with pytest.raises(ValueError) as error:
        fill(module, {"a.weight": torch.zeros(3, 2)})
    assert "a.bias (2,) is missing" in str(error.value)
    assert "a.weight should have shape (2, 3), the file has (3, 2)" in str(error.value)
    assert all(v.equal(before[k]) for k, v in module.state_dict().items())
