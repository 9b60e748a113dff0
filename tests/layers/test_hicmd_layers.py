"""Hi-CMD's networks: recorded encoder, code layout and neck, the decoder written out, and public weights."""

import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from torch import Tensor

from vireid.layers.backbones.resnet import ResNet, ResNetSettings
from vireid.layers.hicmd import (
    STYLE_AND_POSE,
    AttributeEncoder,
    Balance,
    Neck,
    PrototypeAttribute,
    PrototypeEncoder,
    exchange,
    excluded,
    load_encoders,
    style,
)
from vireid.layers.hicmd_generator import Decoder
from vireid.layers.image_translation import MultiScale, residual_critic

EXACT = {"rtol": 1e-9, "atol": 1e-9}
TINY = {"width": 4, "blocks": (1, 1, 1, 1), "residual": 1, "dilations": (1, 2, 3)}

# Names in the recorded prototype encoder -> names here.
PROTOTYPE = (
    (r"model1\.([01])\.", r"down.\1."),
    (r"model2\.0\.", r"down.2."),
    (r"model2\.1\.", r"down.3."),
    (r"model3\.0\.model\.(\d+)\.model\.0\.", r"residual.\1.first."),
    (r"model3\.0\.model\.(\d+)\.model\.1\.", r"residual.\1.second."),
    (r"model3\.1\.conv1\.", r"pyramid.plain."),
    (r"model3\.1\.conv6\.", r"pyramid.dilated.0."),
    (r"model3\.1\.conv12\.", r"pyramid.dilated.1."),
    (r"model3\.1\.conv18\.", r"pyramid.dilated.2."),
    (r"model3\.1\.fuse\.", r"pyramid.fuse."),
)


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"hicmd_{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def prototype_name(theirs: str) -> str:
    (found,) = [re.sub("^" + pattern, name, theirs) for pattern, name in PROTOTYPE if re.match(pattern, theirs)]
    return found


def test_prototype_encoder_equals_the_recorded_one() -> None:
    arrays = recorded("prototype_encoder")
    encoder = PrototypeEncoder(4, 2).double()
    encoder.load_state_dict({prototype_name(key[2:]): value for key, value in arrays.items() if key.startswith("w/")})
    x = arrays["x"].requires_grad_()
    y = encoder(x)
    y.backward(arrays["upstream"])
    torch.testing.assert_close(y, arrays["y"], **EXACT)
    torch.testing.assert_close(x.grad, arrays["grad_x"], **EXACT)
    compared = [key for key in arrays if key.startswith("grad/")]
    assert len(compared) == 4
    parameters = dict(encoder.named_parameters())
    for key in compared:
        torch.testing.assert_close(parameters[prototype_name(key[5:])].grad, arrays[key], **EXACT)


def test_code_layout_is_the_recorded_one() -> None:
    arrays = recorded("code_layout")
    for dim in (16, 2048):
        numbers = torch.arange(dim)[None]
        assert style(numbers)[0].equal(arrays[f"style_{dim}"])
        assert excluded(numbers)[0].equal(arrays[f"excluded_{dim}"])
        pose_too = exchange(numbers, -numbers - 1, STYLE_AND_POSE)[0] < 0
        assert pose_too[arrays[f"style_{dim}"]].all() and pose_too[arrays[f"pose_{dim}"]].all()
        assert not pose_too[arrays[f"illumination_{dim}"]].any()
    a, b = arrays["code_a"], arrays["code_b"]
    assert exchange(a, b).equal(arrays["swap_style_a"]) and exchange(b, a).equal(arrays["swap_style_b"])
    assert exchange(a, b, STYLE_AND_POSE).equal(arrays["swap_style_and_pose_a"])
    assert exchange(b, a, STYLE_AND_POSE).equal(arrays["swap_style_and_pose_b"])
    with pytest.raises(ValueError, match="multiple of 16 dimensions, got 24"):
        style(torch.zeros(1, 24))


def test_neck_and_the_layers_behind_it_equal_the_recorded_ones() -> None:
    arrays = recorded("classifier_head")
    state = {key[2:]: value for key, value in arrays.items() if key.startswith("w/")}
    neck = Neck(9, 7, dropout=0.0).double()
    names = {"linear": "add_block.0", "bn": "add_block.1"}
    neck.load_state_dict({f"{ours}.{k}": state[f"{theirs}.{k}"] for ours, theirs in names.items()
                          for k in ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
                          if f"{theirs}.{k}" in state})  # fmt: skip
    for training, suffix in ((False, "_eval"), (True, "")):
        f1 = neck.train(training)(arrays["x"])
        torch.testing.assert_close(f1, arrays[f"f1{suffix}"], **EXACT)
        logits = F.linear(f1, state["classifier.0.weight"], state["classifier.0.bias"])
        triplet = F.linear(f1, state["add_block2.0.weight"], state["add_block2.0.bias"])
        torch.testing.assert_close(logits, arrays[f"logits{suffix}"], **EXACT)
        torch.testing.assert_close(triplet, arrays[f"f_triplet{suffix}"], **EXACT)


def test_decoder_is_the_specified_one() -> None:
    torch.manual_seed(0)
    decoder = Decoder(8, 24, 10).double()
    for parameter in decoder.parameters():
        torch.nn.init.normal_(parameter, 0, 0.3)
    prototype, code = torch.randn(2, 8, 6, 5).double(), torch.randn(2, 24).double()
    w = decoder.state_dict()

    def conv(x: Tensor, name: str, pad: int) -> Tensor:
        padded = F.pad(x, (pad,) * 4, mode="reflect") if pad else x
        return F.conv2d(padded, w[f"{name}.weight"], w[f"{name}.bias"])

    def mlp(x: Tensor, name: str) -> Tensor:
        for layer in (0, 2, 4):
            x = F.linear(x, w[f"{name}.{layer}.weight"], w[f"{name}.{layer}.bias"])
            x = leaky(x) if layer < 4 else x
        return x

    def leaky(x: Tensor) -> Tensor:
        return torch.where(x > 0, x, 0.3 * x)

    def modulated(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        mean, var = x.mean((1, 2), keepdim=True), x.var((1, 2), unbiased=False, keepdim=True)
        return weight[:, None, None] * (x - mean) / (var + 1e-5).sqrt() + bias[:, None, None]

    found = decoder(prototype, code)
    assert found.shape == (2, 3, 24, 20)
    for row in range(2):
        x = prototype[row]
        for k in range(4):
            group = code[row, 6 * k : 6 * k + 6]
            weight, bias = mlp(group, f"scales.{k}"), mlp(group, f"shifts.{k}")
            inner = leaky(modulated(conv(x, f"blocks.{k}.first.conv", 1), weight[:8], bias[:8]))
            x = x + modulated(conv(inner, f"blocks.{k}.second.conv", 1), weight[8:], bias[8:])
        for k in range(2):
            x = conv(x.repeat_interleave(2, 1).repeat_interleave(2, 2), f"up.{k}.block.conv", 2)
            x = (x - x.mean()) / (x.std() + 1e-5)
            x = leaky(w[f"up.{k}.block.norm.weight"][:, None, None] * x + w[f"up.{k}.block.norm.bias"][:, None, None])
        x = conv(leaky(conv(leaky(conv(x, "out.0.conv", 1)), "out.1.conv", 1)), "out.2", 0)
        torch.testing.assert_close(found[row], x, **EXACT)


def test_published_sizes() -> None:
    with torch.device("meta"):
        counts = [
            sum(p.numel() for p in part.parameters())
            for part in (PrototypeEncoder(), Decoder(), MultiScale([residual_critic() for _ in range(3)]))
        ]
        embedder = PrototypeAttribute()
    assert counts == [1_520_448, 12_123_011, 1_025_571]  # 1.52, 12.1 and 1.03 million in the specification
    assert embedder.neck.linear.weight.shape == (2048, 2048) and embedder.dim == 2048
    assert embedder.attributes[0].dim == 2048 and embedder.prototypes[0].dim == 256


def test_balance_weighs_vectors_of_length_one() -> None:
    balance = Balance().double()
    e, s = torch.tensor([[3.0, 4.0]]).double(), torch.tensor([[0.0, 5.0, 0.0]]).double()
    for alpha, weights in ((0.5, (0.5, 0.5)), (0.2, (0.2, 0.8)), (1.7, (1.0, 0.0)), (-0.5, (-0.5, 1.5))):
        torch.nn.init.constant_(balance.alpha, alpha)
        expected = torch.tensor([[0.6 * weights[0], 0.8 * weights[0], 0, weights[1], 0]], dtype=torch.float64)
        torch.testing.assert_close(balance(e, s), expected, **EXACT)


def test_both_modalities_start_alike_and_then_differ() -> None:
    torch.manual_seed(0)
    embedder = PrototypeAttribute(**TINY).eval()  # pyright: ignore[reportArgumentType]
    images = torch.randint(0, 256, (3, 3, 64, 32), dtype=torch.uint8)
    zeros, ones = torch.zeros(3, dtype=torch.int64), torch.ones(3, dtype=torch.int64)
    with torch.no_grad():
        assert embedder(images, zeros).equal(embedder(images, ones))
        for parts in (embedder.attributes, embedder.prototypes):
            before = embedder(images, ones)
            next(parts[1].parameters()).add_(0.5)
            assert not torch.allclose(before, embedder(images, ones))
        assert embedder(images, torch.tensor([0, 1, 0]))[0].allclose(embedder(images, zeros)[0], atol=1e-6)
    with pytest.raises(ValueError, match=r"modality must be 0 .* got \[0, 2\]"):
        embedder(images, torch.tensor([0, 2, 0]))
    with pytest.raises(ValueError, match="even number"):
        PrototypeAttribute(width=5)


def test_a_resnet_fills_attribute_encoders_and_trunk() -> None:
    torch.manual_seed(1)
    source = AttributeEncoder(ResNet(ResNetSettings(width=4, blocks=(1, 1, 1, 1), last_stride=2)))
    for buffer in source.buffers():
        if buffer.is_floating_point():
            buffer.uniform_(0.5, 1.5)
    state = {key.removeprefix("stem."): value for key, value in source.state_dict().items()}
    torch.manual_seed(2)
    embedder = PrototypeAttribute(**TINY)  # pyright: ignore[reportArgumentType]
    kept = {key: value.clone() for key, value in embedder.state_dict().items()}
    unused = load_encoders(embedder, {**state, "fc.weight": torch.zeros(3, 4)})
    assert unused == ["fc.weight"]
    images = torch.randn(2, 3, 64, 32)
    for encoder in embedder.attributes:
        assert encoder.eval()(images).equal(source.eval()(images))
    assert embedder.trunk.layer3.state_dict().keys() == source.layer3.state_dict().keys()
    for key, value in embedder.state_dict().items():
        if key.startswith("trunk."):
            assert value.equal(state[key.removeprefix("trunk.")])
        elif not key.startswith("attributes."):
            assert value.equal(kept[key])
    other = PrototypeAttribute(**TINY)  # pyright: ignore[reportArgumentType]
    assert load_encoders(other, embedder.state_dict()) == []
    assert all(a.equal(b) for a, b in zip(other.state_dict().values(), embedder.state_dict().values(), strict=True))
    with pytest.raises(ValueError, match="no known kind"):
        load_encoders(embedder, {"x": torch.zeros(1)})
