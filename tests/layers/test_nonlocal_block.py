"""The non-local block against the recorded arrays of the released code, and its two orders of multiplication."""

import numpy as np
import pytest
import torch
from golden_files import GOLDEN

from vireid.layers.nonlocal_block import NonLocalBlock


def recorded_block() -> tuple[NonLocalBlock, dict[str, np.ndarray]]:
    golden = dict(np.load(GOLDEN / "agw_nonlocal.npz"))
    block = NonLocalBlock(12).double()
    state = {f"{n}.{k}": golden[f"{n}_{k[0]}"] for n in ("theta", "phi", "g", "W") for k in ("weight", "bias")}
    names = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var"}
    state |= {f"bn.{k}": golden[f"bn_{v}"] for k, v in names.items()}
    block.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
    return block, golden


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_recorded_output_gradient_and_statistics(mode: str) -> None:
    block, golden = recorded_block()
    block.train(mode == "train")
    x = torch.tensor(golden["x"], requires_grad=True)
    y = block(x)
    np.testing.assert_allclose(y.detach(), golden[f"y_{mode}"], rtol=1e-9, atol=1e-12)
    y.backward(torch.tensor(golden["grad_out"]))
    np.testing.assert_allclose(x.grad, golden[f"grad_x_{mode}"], rtol=1e-9, atol=1e-12)
    if mode == "train":
        np.testing.assert_allclose(block.bn.running_mean, golden["bn_mean_after"], rtol=1e-9, atol=1e-15)
        np.testing.assert_allclose(block.bn.running_var, golden["bn_var_after"], rtol=1e-9)


def test_starts_as_the_identity() -> None:
    x = torch.randn(2, 8, 3, 2)
    torch.testing.assert_close(NonLocalBlock(8)(x), x, rtol=0, atol=0)


@pytest.mark.parametrize("shape", [(3, 2), (2, 1)])  # more and fewer positions than inner channels
def test_half_width_equals_the_affinity_matrix_written_out(shape: tuple[int, int]) -> None:
    block = NonLocalBlock(8, "half").double().eval()
    torch.nn.init.normal_(block.bn.weight)
    x = torch.randn(2, 8, *shape, dtype=torch.float64)
    t, p, g = (layer(x).flatten(2) for layer in (block.theta, block.phi, block.g))
    assert t.shape[1] == 4
    positions = shape[0] * shape[1]
    y = torch.zeros_like(g)
    for i in range(positions):
        for j in range(positions):
            y[:, :, i] += (t[:, :, i] * p[:, :, j]).sum(1, keepdim=True) / positions * g[:, :, j]
    torch.testing.assert_close(block(x), block.bn(block.W(y.unflatten(2, shape))) + x)


def test_another_width_is_refused() -> None:
    with pytest.raises(ValueError, match="'one' or 'half', got 'third'"):
        NonLocalBlock(8, "third")  # pyright: ignore[reportArgumentType]
