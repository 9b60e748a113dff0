"""Least-squares adversarial losses of a discriminator with one map per scale, and the gradient penalty on real images.

Mao, Li, Xie, Lau, Wang, Smolley: "Least Squares Generative Adversarial Networks", ICCV 2017.

    generator      sum_s mean (D_s(fake) - 1)^2
    discriminator  sum_s [ mean D_s(fake)^2 + mean (D_s(real) - 1)^2 ]
    penalty        sum_s mean_n || d (sum of D_s(x_n)) / d x_n ||^2            x real; its weight is the caller's

D_s is the map (N, 1, h, w) of scale s. The penalty is that of Mescheder, Geiger, Nowozin: "Which Training Methods for
GANs do actually Converge?", ICML 2018, without its factor 1/2, each scale's gradient being squared by itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from vireid.errors import ArgumentError


def generator_loss(fake: Sequence[Tensor]) -> Tensor:
    """Scalar from the maps (N, 1, h, w) of generated images, one per scale: their distance from 1, "real".

    >>> generator_loss([torch.tensor([[[[0.0, 1.0]]]]), torch.tensor([[[[3.0]]]])])  # mean of 1 and 0, plus 4
    tensor(4.5000)
    """
    return torch.stack([(maps - 1).square().mean() for maps in fake]).sum()


def discriminator_loss(fake: Sequence[Tensor], real: Sequence[Tensor]) -> Tensor:
    """Scalar from the maps of generated and of real images, one each per scale: fake to 0, real to 1.

    >>> discriminator_loss([torch.tensor([[[[2.0]]]])], [torch.tensor([[[[1.0]]]])])
    tensor(4.)
    """
    terms = [f.square().mean() + (r - 1).square().mean() for f, r in zip(fake, real, strict=True)]
    return torch.stack(terms).sum()


def gradient_penalty(real: Sequence[Tensor], images: Tensor) -> Tensor:
    """Scalar from the maps of real images and those images (N, C, H, W), which have to require a gradient.

    It can be differentiated again. Raises ValueError where the images carry no gradient.

    >>> images = torch.ones(2, 1, 1, 2, requires_grad=True)
    >>> gradient_penalty([3 * images], images)  # two pixels, 3 squared each
    tensor(18.)
    """
    if not images.requires_grad:
        raise ArgumentError(
            "the gradient penalty needs images that require a gradient; call images.requires_grad_() first"
        )
    terms = []
    for maps in real:
        (gradient,) = torch.autograd.grad(maps.sum(), images, create_graph=True)
        terms.append(gradient.square().flatten(1).sum(1).mean())
    return torch.stack(terms).sum()
