"""Attention of a pair: which places of two pictures raise their similarity, by its gradient.

    s = f(a) f(b) / (|f(a)| |f(b)|),   maps(a) (C, h, w) of the last layer that has places
    value(a)(y, x) = sum over channels of maps(c, y, x) * ds / dmaps(c, y, x)

the product of value and gradient at each place (HiResCAM: Draelos and Carin, arXiv:2011.08891, 2020) of a similarity
in place of a class score (Stylianou, Souvenir and Pless, "Visualizing Deep Similarity Networks", WACV 2019). The
lengths are held constant: the values of all places then add up to s where the vector is a mean of the maps, and to s
minus a constant where a neck shifts that mean; the gradient of the whole cosine would make them add up to 0. Since a
neck moves all values alike, they are drawn from the weakest place of the picture to its strongest one.

Of a transformer, the maps are the patch tokens that go into its last block, because its last output reaches the vector
by the class token alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vireid.data.table import Table
from vireid.errors import ArgumentError
from vireid.figures.style import FAINT, MAP, sheet
from vireid.images import GrayRule, read, resize
from vireid.layers.backbones.vit import VisionTransformer
from vireid.layers.embedder import Embedder
from vireid.types import MODALITIES, Language, Size

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MIN_PLACES = 6  # of a map that is worth drawing
WORDS = {
    "en": {
        "same": "person {first}, similarity {value:.3f}",
        "other": "persons {first} and {second}, similarity {value:.3f}",
        "camera": "cam {camera}, {modality}",
        "visible": "visible",
        "infrared": "infrared",
        "scale": "share in the similarity, from the weakest to the strongest place of each picture",
    },
    "zh": {
        "same": "行人 {first}，相似度 {value:.3f}",
        "other": "行人 {first} 与 {second}，相似度 {value:.3f}",
        "camera": "摄像头 {camera}，{modality}",
        "visible": "可见光",
        "infrared": "红外",
        "scale": "对相似度的贡献，从每张图像中最弱的位置到最强的位置",
    },
}


@dataclass(frozen=True)
class Explained:
    """The cosine of two pictures, and for each of them the relevance (h, w) of its places, from 0 to 1."""

    similarity: float
    relevance: tuple[np.ndarray, np.ndarray]


def explain_pair(embedder: Embedder, images: Tensor, modality: Tensor) -> Explained:
    """What makes two pictures similar: uint8 images (2, 3, H, W), modality (2,).

    Raises ArgumentError for a network that takes more than pictures, and for one without maps that reach the vector.
    """
    if embedder.inputs:
        raise ArgumentError(
            f"{type(embedder).__name__} also takes {', '.join(embedder.inputs)}; a pair is explained for networks that "
            "take pictures alone"
        )
    transformer = next((m for m in embedder.modules() if isinstance(m, VisionTransformer)), None)
    kept: list[Tensor] = []

    def keep(module: object, args: tuple[object, ...], output: object) -> None:
        if isinstance(output, Tensor) and output.dim() == 4 and output.shape[2] * output.shape[3] >= MIN_PLACES:
            kept.append(output)

    def keep_input(module: object, args: tuple[Tensor, ...]) -> None:
        kept.append(args[0])

    embedder.eval()
    if transformer is not None:
        hooks = [transformer.blocks[-1].register_forward_pre_hook(keep_input)]
    else:
        hooks = [module.register_forward_hook(keep) for module in embedder.modules()]
    try:
        with torch.enable_grad():
            given = embedder.normalize(images).requires_grad_()
            first, second = next(iter(embedder.layers(given, modality).values()))
            similarity = (first / first.detach().norm()) @ (second / second.detach().norm())
    finally:
        for hook in hooks:
            hook.remove()
    unique = list({id(x): x for x in kept if len(x) == 2 and x.requires_grad}.values())
    gradients = torch.autograd.grad(similarity, unique, allow_unused=True) if unique else ()
    for maps, gradient in reversed(list(zip(unique, gradients, strict=True))):
        if gradient is not None:
            product = maps.detach() * gradient  # (2, C, h, w), or tokens (2, 1 + h w, C)
            if transformer is not None:
                relevance = product[:, 1:].sum(2).unflatten(1, transformer.grid)
            else:
                relevance = product.sum(1)
            relevance = relevance - relevance.amin(dim=(1, 2), keepdim=True)
            one, two = (relevance / relevance.amax(dim=(1, 2), keepdim=True).clamp_min(1e-12)).float().cpu().numpy()
            return Explained(float(similarity.detach()), (one, two))
    raise ArgumentError(f"{type(embedder).__name__} has no maps of places that reach its vector; nothing to draw")


def pair_attention(
    embedder: Embedder, table: Table, pairs: Sequence[tuple[int, int]], *, lang: Language = "en"
) -> Figure:
    """A line for each pair of rows of the table: both pictures, as they are and with what makes them similar on them.

    Raises ArgumentError for no pair and as `explain_pair`, PictureError, MissingPackage.
    """
    if not pairs:
        raise ArgumentError("give at least one pair of rows to explain")
    use = embedder.deployment
    if use is None:
        raise ArgumentError("the size of this embedder's pictures is not known; load it from a run or a bundle")
    with sheet(lang) as page:
        words = page.words(WORDS)
        height = 2.1
        gray = GrayRule.of(use.thermal_range)
        width = max(4.6, 4 * (height * use.size[1] / use.size[0]) + 1.2)
        figure = page.figure(width, (height + 0.45) * len(pairs) + 0.6)
        parts = figure.subfigures(len(pairs), 1, squeeze=False)[:, 0]
        for part, rows in zip(parts, pairs, strict=True):
            pixels = [
                np.array(resize(read(table.full_path(row), gray=table.gray(row, gray)), use.size, use.filter))
                for row in rows
            ]
            images = torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()
            explained = explain_pair(embedder, images, torch.from_numpy(table.modality[list(rows)].astype(np.int64)))
            first, second = (int(table.pid[row]) for row in rows)
            title = words["same" if first == second else "other"]
            part.suptitle(title.format(first=first, second=second, value=explained.similarity), fontsize=9)
            axes = part.subplots(1, 4)
            for place, side in ((0, 0), (1, 0), (2, 1), (3, 1)):
                axes[place].imshow(pixels[side])
                if place in (1, 2):
                    heat = _smooth(explained.relevance[side], use.size)
                    axes[place].imshow(heat, cmap=MAP, vmin=0, vmax=1, alpha=0.1 + 0.6 * heat)
                else:
                    modality = words[MODALITIES[int(table.modality[rows[side]])]]
                    camera = words["camera"].format(camera=table.camid[rows[side]], modality=modality)
                    axes[place].set_xlabel(camera, fontsize=7, color=FAINT)
                axes[place].set(xticks=[], yticks=[])
                axes[place].spines[:].set_visible(False)
                axes[place].grid(visible=False)
        figure.supxlabel(words["scale"], fontsize=7)
        return figure


def _smooth(relevance: np.ndarray, size: Size) -> np.ndarray:
    """Relevance at the size of the picture, from 0 to 1."""
    large = Image.fromarray(relevance.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(large), 0, 1)
