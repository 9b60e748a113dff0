"""Network of CMTR: a vision transformer that reads each image's modality as a learned vector, and a BN neck.

Liang et al.: "CMTR: Cross-modality Transformer for Visible-infrared Person Re-identification",
arXiv 2021; written from the published equations, no code was released.

    x_0 = [class, patches] + position code + scale e^m     e^m (D): the modality embedding, one vector per modality
    V   = class token behind the last layer norm = pooled (N, D),   f = BN(V) = embedding (N, D)
    g   = f - phi_m(e^m), the cleaned embedding of training; phi_m: a map per modality
"""

from __future__ import annotations

import itertools
from typing import Any, Literal, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.declaration import Weight, settings
from vireid.errors import ArgumentError
from vireid.layers.backbones.vit import STD, VisionTransformer, VisionTransformerSettings
from vireid.layers.embedder import Embedder
from vireid.layers.neck import bn_neck
from vireid.types import IMAGENET_MEAN, IMAGENET_STD, INFRARED, MODALITIES, VISIBLE

Pixels = Literal["imagenet", "half"]
Phi = Literal["linear", "mlp"]


class EncodedImage(NamedTuple):
    """What training losses act on."""

    pooled: Tensor  # (N, D), V, before the neck
    embedding: Tensor  # (N, D), f, behind the neck


@settings
class ModalityTransformerSettings(VisionTransformerSettings):
    """Settings of CMTR's network; what the paper leaves open follows TransReID and PMT."""

    modality_scale: Weight = 1.0
    """Factor of e^m at the transformer's input; no factor is printed, TransReID multiplies its vector by 3."""
    modality_on_cls: bool = True
    """Whether the class token receives e^m too; the printed sum lists the patches only."""
    pixels: Pixels = "imagenet"
    """Statistics that the pretrained weights expect: ImageNet's, or mean = deviation = 0.5 (half)."""


class ModalityTransformer(Embedder):
    """Maps images and modality to {"neck": f (N, dim), "pooled": V (N, dim)}; the neck's output is deployed.

    Raises ArgumentError for images of another size than `image_size`, and, when run in torch, for a modality that is
    neither 0 nor 1 or not one per image.
    """

    Settings = ModalityTransformerSettings
    settings: ModalityTransformerSettings

    def __init__(self, settings: ModalityTransformerSettings | None = None, **words: Any) -> None:
        super().__init__(settings, **words)
        self.dim = self.settings.dim
        self.trunk = VisionTransformer(self.settings)
        self.modality_embed = nn.Parameter(torch.zeros(len(MODALITIES), self.dim))
        nn.init.trunc_normal_(self.modality_embed, std=STD)
        self.neck = bn_neck(self.dim)

    def backbone_parts(self) -> list[list[nn.Module]]:
        blocks = list(self.trunk.blocks)
        cuts = [len(blocks) * i // 4 for i in range(5)]
        return [[self.trunk.patch_embed], *(blocks[a:b] for a, b in itertools.pairwise(cuts))]

    def modality_vectors(self, modality: Tensor) -> Tensor:
        """scale e^m (N, dim) of modality (N,); in an exported graph any other number fails, or gives NaN.

        Without the detour a graph would read -1 as the last row. Most runtimes check that an index lies within the
        table, some (onnxruntime on GPUs) read 0 there: hence both the number outside the table and the NaN.
        """
        known = (modality == VISIBLE) | (modality == INFRARED)
        vectors = F.embedding(torch.where(known, modality, len(MODALITIES)), self.modality_embed)
        return torch.where(known[:, None], self.settings.modality_scale * vectors, torch.nan)

    def tokens(self, images: Tensor, modality: Tensor) -> Tensor:
        """The transformer's input (N, 1 + n, dim): normalized images (N, 3, H, W), modality (N,)."""
        check_modality(images, modality)
        return self.trunk.tokens(self.rescaled(images), self.modality_vectors(modality), self.settings.modality_on_cls)

    def encode(self, images: Tensor, modality: Tensor) -> EncodedImage:
        """Pooled and embedding of normalized float images (N, 3, H, W) with modality (N,)."""
        check_modality(images, modality)
        x = self.trunk(self.rescaled(images), self.modality_vectors(modality), self.settings.modality_on_cls)
        pooled = x[:, 0]
        return EncodedImage(pooled, self.neck(pooled))

    def layers(self, images: Tensor, modality: Tensor, *inputs: Tensor) -> dict[str, Tensor]:
        pooled, embedding = self.encode(images, modality)
        return {"neck": embedding, "pooled": pooled}

    def rescaled(self, images: Tensor) -> Tensor:
        """Images normalized by ImageNet's statistics, as they are or with mean and deviation 0.5 in their place."""
        if self.settings.pixels == "imagenet":
            return images
        mean, std = (images.new_tensor(values).view(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
        return (images * std + mean - 0.5) / 0.5


def check_modality(images: Tensor, modality: Tensor) -> None:
    """One modality for each image, 0 or 1; ValueError otherwise. A wrong one is not noticed later: it only ranks worse.

    A graph that is being traced has no values to look at; there `modality_vectors` stands guard.
    """
    if torch.compiler.is_compiling():
        return
    if modality.shape != images.shape[:1]:
        raise ArgumentError(
            f"every image needs its modality: expected shape ({len(images)},), got {tuple(modality.shape)}"
        )
    if not bool(((modality == VISIBLE) | (modality == INFRARED)).all()):
        raise ArgumentError(
            f"modality must be {VISIBLE} (visible) or {INFRARED} (infrared), got {modality.unique().tolist()}"
        )


class ModalityRemoval(nn.Module):
    """Subtracts from each embedding what its modality's vector maps to: g = f - phi_m(e^m).

    phi: "linear", or "mlp" with a GELU between two linear layers; a map of its own for each modality. Weights start
    small and biases at 0, so that g begins as f.
    """

    def __init__(self, dim: int, phi: Phi = "linear") -> None:
        super().__init__()
        self.phi = nn.ModuleList(
            nn.Linear(dim, dim)
            if phi == "linear"
            else nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
            for _ in MODALITIES
        )
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=STD)
                nn.init.zeros_(module.bias)

    def forward(self, embedding: Tensor, modality: Tensor, modality_embed: Tensor) -> Tensor:
        """g (N, D) of f (N, D) with modality (N,) and both vectors e (2, D), which keep their gradient."""
        removed = torch.stack([phi(e) for phi, e in zip(self.phi, modality_embed, strict=True)])
        return remove_modality(embedding, modality, removed)


def remove_modality(embedding: Tensor, modality: Tensor, removed: Tensor) -> Tensor:
    """embedding (N, D) minus the row of `removed` (2, D) that is its modality's (N,).

    >>> remove_modality(torch.ones(2, 1), torch.tensor([0, 1]), torch.tensor([[0.25], [3.0]])).tolist()
    [[0.75], [-2.0]]
    """
    return embedding - removed[modality]
