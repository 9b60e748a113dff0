"""Contrast between the modalities: each image has to find its own person among the images of the other modality.

With unit vectors v_i (visible) and r_j (infrared), S_ij = v_i . r_j / t and the images P_i of the same person,

    L = mean_i of -(1 / |P_i|) sum over j in P_i of log softmax_j S_ij   +   the same with the modalities exchanged

For one image a person and modality this is InfoNCE in both directions (van den Oord et al., "Representation Learning
with Contrastive Predictive Coding", 2018; Radford et al., "Learning Transferable Visual Models From Natural Language
Supervision", ICML 2021); with several, the supervised form of Khosla et al., "Supervised Contrastive Learning",
NeurIPS 2020, over pairs of different modality alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from vireid.distributed import gather
from vireid.layers.pooling import at_least_float32


def modality_contrast(
    visible: Tensor, infrared: Tensor, visible_label: Tensor, infrared_label: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """The loss of embeddings (V, D) and (R, D) with labels (V,) and (R,), and the share of images whose nearest of the
    other modality is the right person.

    Every label has to occur in both modalities.
    """
    visible, infrared = (F.normalize(at_least_float32(gather(x)), dim=1) for x in (visible, infrared))
    visible_label, infrared_label = gather(visible_label), gather(infrared_label)
    similarity = visible @ infrared.T / temperature
    same = visible_label[:, None] == infrared_label[None, :]
    loss = directed(similarity, same) + directed(similarity.T, same.T)
    with torch.no_grad():
        hits = [pairs.gather(1, s.argmax(1, keepdim=True)) for s, pairs in ((similarity, same), (similarity.T, same.T))]
    return loss, torch.cat(hits).float().mean()


def directed(similarity: Tensor, same: Tensor) -> Tensor:
    """Cross-entropy of rows (A, B) of similarities against their `same` columns, evenly shared."""
    target = same.to(similarity) / same.sum(1, keepdim=True)
    return -(torch.log_softmax(similarity, dim=1) * target).sum(1).mean()
