"""Mogrifier LSTM cell: recorded arrays of a public re-implementation, a loop over the equations, no rounds."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from vireid.layers.mogrifier import MogrifierLSTMCell

RECORDED = np.load(Path(__file__).parents[1] / "golden" / "mogrifier_cell.npz")
EXACT = {"rtol": 1e-9, "atol": 1e-12}


def recorded_cell() -> MogrifierLSTMCell:
    state = {key.removeprefix("w/"): torch.tensor(RECORDED[key]) for key in RECORDED.files if key.startswith("w/")}
    cell = MogrifierLSTMCell(6, 5, int(RECORDED["rounds"])).double()
    cell.load_state_dict(state)  # strictly: its parameters bear these names
    return cell


def test_recorded_states_and_gradients() -> None:
    cell = recorded_cell()
    x, h, c = given = [torch.tensor(RECORDED[name], requires_grad=True) for name in "xhc"]
    mogrified = cell.mogrify(x, h)
    for found, name in zip(mogrified, ("x_mogrified", "h_mogrified"), strict=True):
        np.testing.assert_allclose(found.detach(), RECORDED[name], **EXACT)
    following = cell(x, h, c)
    for found, name in zip(following, ("h_next", "c_next"), strict=True):
        np.testing.assert_allclose(found.detach(), RECORDED[name], **EXACT)
    (following[0] * torch.tensor(RECORDED["upstream_h"])).sum().backward()
    for value, name in zip(given, "xhc", strict=True):
        np.testing.assert_allclose(value.grad, RECORDED[f"grad_{name}"], **EXACT)  # pyright: ignore


def by_hand(cell: MogrifierLSTMCell, x: Tensor, h: Tensor, c: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """One row, in numpy."""
    w = {name: p.detach().numpy() for name, p in cell.named_parameters()}
    x, h, c = (v.numpy() for v in (x, h, c))  # pyright: ignore

    def sigmoid(v: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-v))

    for i in range(1, len(cell.mogrifier_list) + 1):
        q, a = w[f"mogrifier_list.{i - 1}.weight"], w[f"mogrifier_list.{i - 1}.bias"]
        if i % 2:
            x = 2 * sigmoid(q @ h + a) * x
        else:
            h = 2 * sigmoid(q @ x + a) * h
    gates = w["lstm.weight_ih"] @ x + w["lstm.bias_ih"] + w["lstm.weight_hh"] @ h + w["lstm.bias_hh"]
    i, f, g, o = np.split(gates, 4)
    memory = sigmoid(f) * c + sigmoid(i) * np.tanh(g)  # pyright: ignore
    return sigmoid(o) * np.tanh(memory), memory


@pytest.mark.parametrize("rounds", [0, 1, 2, 5, 6])
def test_equals_the_equations_row_by_row(rounds: int) -> None:
    torch.manual_seed(rounds)
    cell = MogrifierLSTMCell(4, 3, rounds).double()
    x, h, c = (torch.randn(2, n, dtype=torch.float64) for n in (4, 3, 3))
    following = [v.detach().numpy() for v in cell(x, h, c)]
    for row in range(2):
        for found, expected in zip(following, by_hand(cell, x[row], h[row], c[row]), strict=True):
            np.testing.assert_allclose(found[row], expected, **EXACT)
    if not rounds:
        plain = nn.LSTMCell(4, 3).double()
        plain.load_state_dict(cell.lstm.state_dict())
        assert plain(x, (h, c))[0].detach().equal(torch.tensor(following[0]))


def test_negative_rounds_are_refused() -> None:
    with pytest.raises(ValueError, match="got -1"):
        MogrifierLSTMCell(4, 3, -1)
