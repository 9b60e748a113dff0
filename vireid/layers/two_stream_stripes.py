"""Stripes of AGW's network, a setting: the maps are averaged over horizontal stripes, joined to one pooled vector.

    maps (N, C, h, w) -> mean of each of S stripes = pooled (N, S C) -> BN neck = embedding

The cells of layers/cells.py with one column. A backbone of few channels has a long vector so, which keeps apart what
people wear above and below; PCB's stripes (Sun et al., ECCV 2018) have classifiers of their own, these have none.
"""

from __future__ import annotations

import dataclasses
from typing import Self

from pydantic import model_validator

from vireid.declaration import Count, settings
from vireid.errors import ArgumentError
from vireid.layers.cells import CellNetwork, CellsSettings
from vireid.layers.two_stream import TwoStream, TwoStreamSettings


@settings
class StripesSettings(TwoStreamSettings):
    """The two-stream network, with its maps pooled as a whole or in stripes."""

    stripes: Count = 1
    """Horizontal stripes of the maps whose averages make the pooled vector; 1: `pooling` of the whole maps."""

    @model_validator(mode="after")
    def averages_stripes(self) -> Self:
        if self.stripes > 1 and self.pooling != "average":
            raise ArgumentError(f"stripes={self.stripes} are averaged: set pooling=average, not {self.pooling}")
        return self


def two_stream(given: TwoStreamSettings) -> TwoStream:
    """The network that the settings describe."""
    if not isinstance(given, StripesSettings) or given.stripes == 1:
        return TwoStream(given)
    own = {field.name: getattr(given, field.name) for field in dataclasses.fields(TwoStreamSettings)}
    return CellNetwork(CellsSettings(**own, cells=((4, given.stripes, 1),)))
