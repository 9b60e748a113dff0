"""Gallery refiner: a refiner trained on a base run, such as NFormer's, that re-ranks the hits of a gallery.

A gallery holds vectors of length 1; a refiner was trained on the base's vectors as they come, whose length its first
layer counts on. So they are made as long again as the base's were on average. Query and shortlist are refined together,
as a set of their own: what the refiner sees of the gallery are the rows of the shortlist alone.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch import Tensor, nn

from vireid.deploy.bundle import Bundle
from vireid.errors import RefinerError
from vireid.evaluation.embed import Embeddings
from vireid.layers.refiner import Apart, Refiner
from vireid.training.run_folder import RunFolder


class ServedRefiner(nn.Module):
    """Refined vectors (N, D) of unit vectors (N, dim) of a gallery; `length` is what the refiner was trained on."""

    def __init__(self, refiner: Refiner, length: float) -> None:
        super().__init__()
        self.refiner, self.length = refiner.eval(), length
        self.name, self.min_images = refiner.name, refiner.min_images
        self.eval()

    def forward(self, vectors: Tensor, modality: Tensor, apart: Apart | None = None) -> Tensor:
        return self.refiner(vectors * self.length, modality, apart)


def open_refiner(run: str | Path, bundle: Bundle) -> ServedRefiner:
    """The refiner of a run that `vireid train nformer` wrote on the run that the bundle was exported from.

    Raises RefinerError where the bundle holds another embedder or the base's vectors are not there, and RunError.
    """
    opened = RunFolder.open(run)
    refiner, base, config = opened.refiner(), opened.base, bundle.config
    if not config.digest.startswith(base.embedder):
        raise RefinerError(
            f"{opened.path} refines the vectors of embedder {base.embedder} ({base.path}), the bundle holds "
            f"{config.digest[: len(base.embedder)]}: serve that run, or train a refiner on yours "
            "(`vireid train nformer base=RUN`)"
        )
    return ServedRefiner(refiner, length_of(Path(base.path), bundle))


def length_of(base: Path, bundle: Bundle) -> float:
    """The mean length of the base's vectors: of those that the refiner was trained on, else of any of that embedder."""
    folders = [base / "embeddings", bundle.path.parent / "embeddings"]
    files = [base] if base.is_file() else [file for folder in folders for file in sorted(folder.glob("*.npz"))]
    files.sort(key=lambda file: "@frozen" not in file.name)  # of the training people, as NFormer's training kept them
    for file in files:
        kept = Embeddings.load(file)
        of_layer = kept.stamp.get("layer", bundle.config.layer) == bundle.config.layer
        if of_layer and kept.vectors.shape[1] == bundle.config.dim and _of(kept, bundle):
            return float(np.linalg.norm(kept.vectors, axis=1).mean())
    raise RefinerError(
        f"the length of the vectors of {base} is unknown: it keeps none of embedder {bundle.config.digest[:8]}; "
        f"write them with `vireid embed {base}`"
    )


def _of(kept: Embeddings, bundle: Bundle) -> bool:
    """Whether vectors were made by the bundle's embedder, where they say by which; those that training kept do not."""
    return bundle.config.digest.startswith(kept.stamp.get("embedder", ""))
