"""Mogrifier LSTM cell: input and hidden state gate each other by turns before an ordinary LSTM cell takes them.

Melis, Kocisky, Blunsom: "Mogrifier LSTM", ICLR 2020 (arXiv 1909.01792); checked against recorded arrays of a public
re-implementation, fawazsammani/mogrifier-lstm-pytorch, whose parameter names it has.

    x^0 = x, h^0 = h;  in round i = 1 .. r:  i odd:   x <- 2 sigmoid(Q_i h + a_i) * x
                                             i even:  h <- 2 sigmoid(R_i x + e_i) * h
    (h', c') = LSTM(x, (h, c))                       the latest x and h are taken each time; r = 0 is an ordinary LSTM
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vireid.errors import ArgumentError


class MogrifierLSTMCell(nn.Module):
    """One step of the recurrence; raises ValueError for a negative number of rounds."""

    def __init__(self, input_size: int, hidden_size: int, rounds: int = 5) -> None:
        super().__init__()
        if rounds < 0:
            raise ArgumentError(f"rounds of mutual gating are 0 or more, got {rounds}")
        sizes = (hidden_size, input_size)
        self.mogrifier_list = nn.ModuleList(nn.Linear(sizes[i % 2], sizes[1 - i % 2]) for i in range(rounds))
        self.lstm = nn.LSTMCell(input_size, hidden_size)

    def mogrify(self, x: Tensor, h: Tensor) -> tuple[Tensor, Tensor]:
        """x (N, input_size) and h (N, hidden_size) after all rounds."""
        for i, gate in enumerate(self.mogrifier_list):  # counted from 0: the first gate is on x
            if i % 2 == 0:
                x = 2 * torch.sigmoid(gate(h)) * x
            else:
                h = 2 * torch.sigmoid(gate(x)) * h
        return x, h

    def forward(self, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
        """The next hidden state and cell, (N, hidden_size) each, from x (N, input_size), h and c (N, hidden_size)."""
        x, h = self.mogrify(x, h)
        return self.lstm(x, (h, c))
