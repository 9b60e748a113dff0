"""Training-only networks of MSCLNet: pooling of instance-normalized maps, and the fusion of a pair stripe by stripe.

Zhang, Zhao, Kang, Shen: "Modality Synergy Complement Learning with Cascaded Aggregation for Visible-Infrared Person
Re-identification", ECCV 2022. The paper names instance norm and a Mogrifier LSTM over a chain of stripes; widths,
pooling and what enters the recurrence where are choices. With x_j, r_j the reduced stripes of both modalities:

    (s_j, c_j) = MogrifierLSTMCell(x_j, r_j + s_{j-1}, c_{j-1}),  s_0 = c_0 = 0;   b_j^s = expand(s_j)
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vireid.layers.mogrifier import MogrifierLSTMCell
from vireid.layers.pooling import Pooling, at_least_float32, pool
from vireid.layers.stripes import bands


class NormalizedPooling(nn.Module):
    """Maps (N, dim, h, w) of one modality, instance-normalized, to g (N, dim) and stripes (N, parts, dim).

    A channel's mean over a normalized map is its shift whatever the picture, so a plain average would tell nothing:
    negative values are cut off before pooling, as they are in AGW's maps.
    """

    def __init__(self, dim: int, parts: int, pooling: Pooling) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(dim, affine=True)
        self.pool = pool(pooling)
        self.parts = parts

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.norm(at_least_float32(maps)).relu()
        return self.pool(maps), torch.stack([self.pool(band) for band in bands(maps, self.parts)], dim=1)


class Synergy(nn.Module):
    """S: stripes of a pair, (N, parts, dim) visible and infrared, to stripes of both (N, parts, dim)."""

    def __init__(self, dim: int, hidden: int, rounds: int) -> None:
        super().__init__()
        self.reduce = nn.Linear(dim, hidden)
        self.cell = MogrifierLSTMCell(hidden, hidden, rounds)
        self.expand = nn.Linear(hidden, dim)

    def forward(self, visible: Tensor, infrared: Tensor) -> Tensor:
        dtype = self.reduce.weight.dtype
        with torch.autocast(visible.device.type, enabled=False):  # a recurrence adds up the roundings of bfloat16
            x, other = self.reduce(visible.to(dtype)), self.reduce(infrared.to(dtype))
            states: list[Tensor] = []
            state = memory = x.new_zeros(len(x), x.shape[2])
            for j in range(x.shape[1]):  # from the head down; the infrared stripe enters through the hidden state
                state, memory = self.cell(x[:, j], other[:, j] + state, memory)
                states.append(state)
            return self.expand(torch.stack(states, dim=1))
