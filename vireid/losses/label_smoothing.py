"""Label smoothing, a setting of every identity loss: the label keeps 1 - s, the share s is spread over all identities.

Szegedy, Vanhoucke, Ioffe, Shlens, Wojna: "Rethinking the Inception Architecture for Computer Vision", CVPR 2016. The
loss itself is torch's cross_entropy.
"""

from __future__ import annotations

from vireid.declaration import BelowOne, settings


@settings
class LabelSmoothing:
    """Of a method whose classifiers learn identities by cross-entropy."""

    label_smoothing: BelowOne = 0.0
    """Share of each label that is spread evenly over all identities; 0: none."""
