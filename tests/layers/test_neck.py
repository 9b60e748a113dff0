"""BN neck and classifier: initial values and what is frozen."""

import pytest
import torch

from vireid.layers.neck import bn_neck, classifier


def test_neck_starts_near_one_with_a_frozen_shift() -> None:
    torch.manual_seed(0)
    neck = bn_neck(4096)
    assert not neck.bias.requires_grad and not neck.bias.any()
    assert neck.weight.requires_grad
    assert float(neck.weight.detach().mean()) == pytest.approx(1, abs=1e-3)
    assert float(neck.weight.detach().std()) == pytest.approx(0.01, rel=0.1)


def test_classifier_has_no_bias_and_small_weights() -> None:
    torch.manual_seed(0)
    layer = classifier(64, 100)
    assert layer.bias is None and layer.weight.shape == (100, 64)
    assert float(layer.weight.detach().std()) == pytest.approx(0.001, rel=0.1)


def test_classifier_without_identities_is_refused() -> None:
    with pytest.raises(ValueError, match="num_pids=0"):
        classifier(64, 0)
