"""Image-translation blocks against arrays recorded by running Hi-CMD's released code, and their properties."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from torch import Tensor

from vireid.layers.image_translation import (
    ConvBlock,
    MultiScale,
    ResidualBlock,
    SampleNorm,
    Upsample,
    adain,
    init_kaiming,
    init_normal,
    residual_blocks,
    residual_critic,
    strided_critic,
)
from vireid.losses.least_squares_gan import discriminator_loss, generator_loss, gradient_penalty

EXACT = {"rtol": 1e-9, "atol": 1e-9}


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"hicmd_{name}.npz") as arrays:
        return {key: torch.from_numpy(arrays[key]) for key in arrays}


def seeded(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64)


@pytest.mark.parametrize("name", ["layernorm_batch1", "layernorm_batch3"])
def test_sample_norm_equals_the_recorded_one(name: str) -> None:
    arrays = recorded(name)
    norm = SampleNorm(4).double()
    norm.load_state_dict({"weight": arrays["gamma"], "bias": arrays["beta"]})
    x = arrays["x"].requires_grad_()
    y = norm(x)
    y.backward(arrays["upstream"])
    torch.testing.assert_close(y, arrays["y"], **EXACT)
    for found, expected in ((x, "grad_x"), (norm.weight, "grad_gamma"), (norm.bias, "grad_beta")):
        torch.testing.assert_close(found.grad, arrays[expected], **EXACT)


def test_adain_equals_the_recorded_one() -> None:
    arrays = recorded("adain")
    x, weight, bias = (arrays[name].requires_grad_() for name in ("x", "weight", "bias"))
    y = adain(x, weight.view(2, 3), bias.view(2, 3))
    y.backward(arrays["upstream"])
    torch.testing.assert_close(y, arrays["y"], **EXACT)
    for found, expected in ((x, "grad_x"), (weight, "grad_weight"), (bias, "grad_bias")):
        torch.testing.assert_close(found.grad, arrays[expected], **EXACT)


def recorded_critic(arrays: dict[str, Tensor]) -> tuple[MultiScale, dict[str, str]]:
    """The tiny discriminator of the arrays, and the recorded name of each of its parameters."""
    critic = MultiScale([residual_critic(width=4, blocks=2) for _ in range(3)]).double()
    names = {}
    for name in critic.state_dict():
        theirs = name.replace("networks.", "cnns.")
        names[name] = theirs.replace("first.", "model.0.").replace("second.", "model.1.")
    critic.load_state_dict({name: arrays[f"w/{theirs}"] for name, theirs in names.items()})
    return critic, names


def test_discriminator_and_its_losses_equal_the_recorded_ones() -> None:
    arrays = recorded("discriminator")
    critic, names = recorded_critic(arrays)
    assert len(names) == sum(key.startswith("w/") for key in arrays)
    fake, real = arrays["fake"].requires_grad_(), arrays["real"].requires_grad_()

    maps = {"fake": critic(fake), "real": critic(real)}
    for kind, found in maps.items():
        for scale, values in enumerate(found):
            torch.testing.assert_close(values, arrays[f"forward_{kind}_scale{scale}"], **EXACT)

    plain = discriminator_loss(critic(fake.detach()), maps["real"])
    penalty = 0.01 * gradient_penalty(maps["real"], real)
    torch.testing.assert_close(plain, arrays["loss_dis_without_gradient_penalty"], **EXACT)
    torch.testing.assert_close(penalty, arrays["gradient_penalty"], **EXACT)
    torch.testing.assert_close(plain + penalty, arrays["loss_dis"], **EXACT)
    (plain + penalty).backward(inputs=list(critic.parameters()))
    for name, parameter in critic.named_parameters():
        torch.testing.assert_close(parameter.grad, arrays[f"grad_dis/{names[name]}"], **EXACT)

    loss = generator_loss(maps["fake"])
    (gradient,) = torch.autograd.grad(loss, fake)
    torch.testing.assert_close(loss, arrays["loss_gen"], **EXACT)
    torch.testing.assert_close(gradient, arrays["grad_gen_wrt_fake"], **EXACT)


def test_gradient_penalty_needs_images_with_a_gradient() -> None:
    images = torch.ones(1, 1, 2, 2)
    with pytest.raises(ValueError, match="requires_grad_"):
        gradient_penalty([images], images)


def test_pooling_between_scales_leaves_the_padding_out() -> None:
    images = torch.ones(1, 3, 8, 6, dtype=torch.float64)
    levels = MultiScale([torch.nn.Identity() for _ in range(3)])(images)
    assert [tuple(level.shape[-2:]) for level in levels] == [(8, 6), (4, 3), (2, 2)]
    for level in levels:
        torch.testing.assert_close(level, torch.ones_like(level))


def test_strided_critic_is_the_pattern_of_unit() -> None:
    critic = strided_critic(1, width=64, layers=4)
    shapes = [tuple(p.shape) for p in critic.parameters() if p.ndim == 4]
    assert shapes == [(64, 1, 4, 4), (128, 64, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1, 512, 1, 1)]
    assert critic(torch.zeros(2, 1, 64, 32)).shape == (2, 1, 4, 2)


@pytest.mark.parametrize("norm", ["none", "instance", "layer"])
@pytest.mark.parametrize("padding", ["reflect", "zero"])
@pytest.mark.parametrize(("activation", "slope"), [("none", 0.2), ("relu", 0.2), ("leaky", 0.3)])
def test_conv_block_is_pad_convolution_norm_activation(norm: str, padding: str, activation: str, slope: float) -> None:
    settings = {"norm": norm, "padding": padding, "activation": activation, "slope": slope}
    block = ConvBlock(2, 4, 3, stride=2, pad=2, dilation=2, **settings).double()  # pyright: ignore[reportArgumentType]
    x = seeded(2, 2, 9, 7)
    y = torch.nn.ReflectionPad2d(2)(x) if padding == "reflect" else torch.nn.ZeroPad2d(2)(x)
    y = F.conv2d(y, block.conv.weight, block.conv.bias, stride=2, dilation=2)
    if norm == "instance":
        y = (y - y.mean((2, 3), keepdim=True)) / (y.var((2, 3), unbiased=False, keepdim=True) + 1e-5).sqrt()
    elif norm == "layer":
        assert block.norm is not None
        y = block.norm(y)
    if activation != "none":
        y = torch.where(y > 0, y, y * (slope if activation == "leaky" else 0.0))
    torch.testing.assert_close(block(x), y, **EXACT)


def test_residual_block_gives_each_convolution_its_own_parameters() -> None:
    block = ResidualBlock(3, norm="adain", activation="leaky", slope=0.3).double()
    x, weight, bias = seeded(2, 3, 6, 5), seeded(2, 6), seeded(2, 6) + 1
    inner = F.leaky_relu(adain(block.first.conv(F.pad(x, (1,) * 4, mode="reflect")), weight[:, :3], bias[:, :3]), 0.3)
    outer = adain(block.second.conv(F.pad(inner, (1,) * 4, mode="reflect")), weight[:, 3:], bias[:, 3:])
    torch.testing.assert_close(block(x, weight, bias), x + outer, **EXACT)
    with pytest.raises(ValueError, match="needs weight and bias"):
        block(x)


def test_residual_blocks_follow_each_other() -> None:
    blocks = residual_blocks(2, 3, activation="leaky", slope=0.3).double()
    x = seeded(2, 3, 6, 5)
    torch.testing.assert_close(blocks(x), blocks[1](blocks[0](x)), **EXACT)
    assert len(blocks) == 2


def test_upsample_repeats_pixels_before_it_convolves() -> None:
    block = Upsample(4, 2, norm="none", activation="none").double()
    x = seeded(1, 4, 3, 2)
    repeated = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    expected = block.block.conv(F.pad(repeated, (2,) * 4, mode="reflect"))
    torch.testing.assert_close(block(x), expected, **EXACT)
    assert block(x).shape == (1, 2, 6, 4)


def test_faults_say_what_to_do() -> None:
    with pytest.raises(ValueError, match=r"reflection by 3 needs maps larger than that, got \(3, 8\)"):
        ConvBlock(1, 1, 3, pad=3, dilation=3)(torch.zeros(1, 1, 3, 8))
    with pytest.raises(ValueError, match="norm of a ConvBlock is one of"):
        ConvBlock(1, 1, 3, norm="batch")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="are for norm 'adain'"):
        ConvBlock(1, 1, 1)(torch.zeros(1, 1, 2, 2), torch.ones(1, 1), torch.ones(1, 1))
    with pytest.raises(ValueError, match=r"weight and bias \(N, C\) = \(2, 3\)"):
        adain(torch.zeros(2, 3, 4, 4), torch.ones(6), torch.ones(6))
    with pytest.raises(ValueError, match="one network per scale"):
        MultiScale([])


def test_starting_values() -> None:
    torch.manual_seed(0)
    block = ConvBlock(32, 64, 5)
    init_kaiming(block)
    assert block.conv.weight.std().item() == pytest.approx((2 / (32 * 25)) ** 0.5, rel=0.03)
    assert block.conv.bias is not None and not block.conv.bias.any()
    init_normal(block)
    assert block.conv.weight.std().item() == pytest.approx(0.02, rel=0.03)
    weight = SampleNorm(1000).weight
    assert 0 <= weight.min() < 0.01 and 0.99 < weight.max() <= 1  # uniform, not ones
