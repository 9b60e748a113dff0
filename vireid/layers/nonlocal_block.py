"""Non-local block: lets every position of a map look at every other one, and starts as the identity.

Wang, Girshick, Gupta, He: "Non-local Neural Networks", CVPR 2018, in the form of the released code of AGW
(mangye16/Cross-Modal-Re-ID-baseline): dot-product affinity divided by the number of positions, no softmax.

    t = theta(x), p = phi(x), g = g(x)      1x1 convolutions C -> c with bias
    A_ij = t_i . p_j / n                    n = H W positions
    z = BN(W sum_j A_ij g_j) + x            W a 1x1 convolution c -> C with bias
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from vireid.errors import ArgumentError

InnerWidth = Literal["one", "half"]


class NonLocalBlock(nn.Module):
    """Maps (N, C, H, W) to maps of the same shape.

    `inner` "one" is one inner channel, what the released code computes by accident (reduc_ratio // reduc_ratio) and
    its reported results used; "half" is C // 2, what its authors meant. Raises ValueError for another word.
    """

    def __init__(self, channels: int, inner: InnerWidth = "one") -> None:
        super().__init__()
        if inner not in ("one", "half"):
            raise ArgumentError(f"the inner width of a non-local block is 'one' or 'half', got {inner!r}")
        c = 1 if inner == "one" else max(1, channels // 2)
        # The four convolutions keep torch's default initialization, as in the released code.
        self.theta = nn.Conv2d(channels, c, 1)
        self.phi = nn.Conv2d(channels, c, 1)
        self.g = nn.Conv2d(channels, c, 1)
        self.W = nn.Conv2d(c, channels, 1)
        self.bn = nn.BatchNorm2d(channels)
        nn.init.zeros_(self.bn.weight)  # weight and bias 0: the block is the identity at first
        nn.init.zeros_(self.bn.bias)

    def forward(self, x: Tensor) -> Tensor:
        t, p, g = self.theta(x).flatten(2), self.phi(x).flatten(2), self.g(x).flatten(2)  # (N, c, n)
        c, n = t.shape[1:]
        # Without a softmax the product of three matrices may be taken in either order; the smaller inner matrix wins
        # (c x c instead of n x n: with one inner channel no affinity matrix is built at all).
        if c < n:
            y = torch.matmul(torch.matmul(g, p.transpose(1, 2)), t) / n
        else:
            y = torch.matmul(g, torch.matmul(p.transpose(1, 2), t)) / n
        return self.bn(self.W(y.unflatten(2, x.shape[2:]))) + x
