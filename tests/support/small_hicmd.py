"""A small Hi-CMD and its batch, at the sizes of the recorded training step of the released code (golden README).

`recorded_batch` puts its fixed inputs into a batch; `method.step` in float64 of `recorded_method` is then that step.
The recorded parameters are ours under these names (RGB = 0, IR = 1; conv stands for weight and bias):

    gen_RGB.enc_pro                 embedder.prototypes.0     inner names: PROTOTYPE in layers/test_hicmd_layers.py
    gen_RGB.enc_att                 embedder.attributes.0     here the small stand-in for the ResNet
    gen_RGB.dec                     decoder, one for both modalities
      mlp_w1..4, mlp_b1..4            scales.0..3, shifts.0..3, their linear layers in order
      k-th residual block, two convs  blocks.k.first.conv, blocks.k.second.conv
      upsampling, 5x5 conv and LN     up.0.block, up.1.block (gamma = norm.weight, beta = norm.bias)
      3x3, 3x3, 1x1 conv              out.0.conv, out.1.conv, out.2
    dis_RGB                         critics.0: cnns.S.I -> networks.S.I, model.0 -> first, model.1 -> second
    combine_weight.multp            embedder.balance.alpha
    prototype backbone              embedder.trunk            here the small stand-in
    add_block.0, add_block.1        embedder.neck.linear, embedder.neck.bn
    add_block2.0, classifier.0      projection, classifier

The recorded test feature is `method.eval().embedder.layers(images, modality)["neck"]`, modality 0 for visible (there
1) and 1 for infrared (there 0); the recorded decoder is `Decoder(8, 24, 10)`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vireid.layers.hicmd import Neck, PrototypeEncoder
from vireid.layers.hicmd_generator import Decoder, Made
from vireid.layers.image_translation import MultiScale, residual_critic
from vireid.method import Batch
from vireid.methods.hicmd import HiCMD, inputs_of
from vireid.types import INFRARED, VISIBLE

EXACT = {"rtol": 1e-9, "atol": 1e-9}
BOTH = (VISIBLE, INFRARED)
STYLE = [0, 1, 4, 5, 8, 9, 12, 13]  # of a code of 16 dimensions, as recorded (hicmd_code_layout)
POSE, LIGHT = [2, 6, 10, 14], [3, 7, 11, 15]


def stand_in(channels: int, out: int, kernel: int, stride: int) -> nn.Sequential:
    """Takes the place of a ResNet: a convolution, leaky ReLU 0.1, the average over the maps."""
    conv = nn.Conv2d(channels, out, kernel, stride, kernel // 2)
    return nn.Sequential(conv, nn.LeakyReLU(0.1), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def recorded_method(**settings: object) -> HiCMD:
    """Widths of the generator 2, of the critics 3, mlp 6, f1 8, projection 5, six people; no dropout, no erasing."""
    torch.manual_seed(0)
    method = HiCMD(6, width=4, blocks=(1, 1, 1, 1), dropout=0.0, erase=0.0, **settings)  # pyright: ignore
    encode = method.embedder
    encode.prototypes = nn.ModuleList(PrototypeEncoder(2) for _ in BOTH)
    encode.attributes = nn.ModuleList(stand_in(3, 16, 5, 4) for _ in BOTH)
    encode.trunk = stand_in(16, 10, 3, 2)  # pyright: ignore[reportAttributeAccessIssue]
    encode.neck = Neck(10 + 8, 8, dropout=0.0)
    method.decoder = Decoder(16, 16, 6)
    method.critics = nn.ModuleList(MultiScale([residual_critic(width=3) for _ in range(3)]) for _ in BOTH)
    method.classifier, method.projection = nn.Linear(8, 6), nn.Linear(8, 5)
    return method.double()


def recorded_batch(pos: Tensor, pos_labels: Tensor, neg: Tensor, neg_labels: Tensor) -> Batch:
    """`pos` (8, ...) = [visible, visible, infrared, infrared] of two people; `neg` (4, ...) = two of each.

    Rows 0 and 4 of `pos` are x_a and 2 and 6 are x_b; what the released code does not use is left out or stands idle.
    """
    visible = torch.stack([pos[0], neg[0], neg[0], pos[4], neg[1], neg[1]])
    infrared = torch.stack([pos[2], neg[2], neg[2], pos[6], neg[3], neg[3]])
    labels = [
        torch.stack([pos_labels[i], neg_labels[j], neg_labels[j], pos_labels[i + 4], neg_labels[j + 1],
                     neg_labels[j + 1]]) for i, j in ((0, 0), (2, 2))
    ]  # fmt: skip
    view = torch.arange(2).repeat_interleave(6)
    return Batch(torch.cat([visible, infrared]), torch.cat(labels), view + 1, view, view)


def batch() -> Batch:
    images = torch.randn(12, 3, 48, 40, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    smooth = F.avg_pool2d(images, 5, 1, 2) * 3  # neighbors alike, as in pictures
    pos_labels, neg_labels = torch.tensor([4] * 4 + [1] * 4), torch.tensor([0, 2, 3, 5])
    return recorded_batch(smooth[:8], pos_labels, smooth[8:], neg_labels)


def one(module: nn.Module, *rows: Tensor) -> Tensor:
    return module(*(row[None] for row in rows))[0]


def made_of(method: HiCMD, given: Batch) -> Made:
    return method.make(inputs_of(given).images)
