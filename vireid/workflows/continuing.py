"""What a training that continues a model is given: its method, the settings of its network, its weights."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from vireid.deploy.bundle import Bundle
from vireid.deploy.model import bundle_of
from vireid.errors import ArgumentError
from vireid.layers.cells import CellNetwork

METHOD = "contrast"


def contrast_words(target: str | Path, bundle: Bundle | None = None) -> list[str]:
    """Settings of contrast as key=value texts that build the network of a model, for pictures of its size.

    `target` is a model by name, a run folder or a bundle. ArgumentError for the network of another method.
    """
    bundle = bundle or bundle_of(target)
    network = bundle.network()
    if type(network) is not CellNetwork:
        raise ArgumentError(
            f"{target} is a model of {bundle.config.method}; a model of {METHOD} can be continued like this. Give its "
            "weights to its own method: vireid train METHOD --weights RUN --data manifest=mine.csv"
        )
    values = {**dataclasses.asdict(network.settings), "size": bundle.config.size, "filter": bundle.config.filter}
    return [f"{name}={json.dumps(value)}" for name, value in values.items()]
