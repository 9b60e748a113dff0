"""D2RL: the image level's step, unified images, the control without translations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import unit_step
from small_d2rl import batch, moved, take, tiny, weights
from torch import Tensor

from vireid import distributed
from vireid.data.transforms import Symmetric
from vireid.layers.d2rl import UnifiedResNet
from vireid.layers.unit import CHANNELS, Translators
from vireid.method import Progress
from vireid.methods.d2rl import D2RL
from vireid.types import IMAGENET_MEAN, IMAGENET_STD, INFRARED, VISIBLE

pytestmark = pytest.mark.usefixtures("one_thread")
GOLDEN = Path(__file__).parents[1] / "golden" / "unit_step_rgb3_ir1.npz"


# --- the image level --------------------------------------------------------------------------------------------------


def test_step_is_that_of_an_independent_one() -> None:
    """Two phases with given noises: outputs, losses, gradients and the discriminators' Adam, 3 + 1 channels."""
    assert unit_step.check(unit_step.made()) > 100


def test_reference_notices_another_step() -> None:
    for name in ("gen/x_aba", "loss/gen_total", "grad/dis_b.cnns.1.0.conv.weight", "after_dis/dis_a.cnns.0.2.weight"):
        arrays = unit_step.made()
        arrays[name] = arrays[name] + 1e-6
        with pytest.raises(AssertionError, match=name.replace("/", r"\/")):
            unit_step.check(arrays)


def test_recorded_step_of_unit() -> None:
    """x_a visible (2, 3, 32, 24), x_b infrared (2, 1, 32, 24), weights w/*, noises; names as in unit_step."""
    if not GOLDEN.exists():
        pytest.skip(f"{GOLDEN.name} is kept back; put it there and run this again")
    assert unit_step.check(dict(np.load(GOLDEN))) > 100


def test_losses_are_weighted_sums_and_terms_of_weight_0_are_left_out() -> None:
    given = batch(dtype=torch.float64)
    plain = unit_step.small(recon=1.0, kl=1.0, cycle=1.0, kl_cycle=1.0)
    images = plain.by_modality(given)
    assert [x.shape[1] for x in images] == list(CHANNELS)
    noise = plain.noise(images, Progress())
    terms, critic = plain.image_losses(images, noise[2:]), plain.critic_losses(images, noise[:2])
    assert list(terms) == ["recon", "kl", "gan", "cycle", "kl_cycle"]
    weighted = {"recon": 10.0, "kl": 0.01, "gan": 1.0, "cycle": 10.0, "kl_cycle": 0.01}
    for name, loss in unit_step.small().image_losses(images, noise[2:]).items():
        torch.testing.assert_close(loss, weighted[name] * terms[name])
    some = unit_step.small(recon=2.0, kl=0.0, gan=3.0, cycle=0.0, kl_cycle=0.0)
    losses = some.image_losses(images, noise[2:])
    assert list(losses) == ["recon", "gan"]
    torch.testing.assert_close(losses["recon"], 2 * terms["recon"])
    torch.testing.assert_close(losses["gan"], 3 * terms["gan"])
    torch.testing.assert_close(some.critic_losses(images, noise[:2])["discriminators"], 3 * critic["discriminators"])


def test_order_of_rows_does_not_matter() -> None:
    method, given = unit_step.small(), batch(dtype=torch.float64)
    images = method.by_modality(given)
    noise = method.noise(images, Progress())[2:]
    turn = torch.tensor([3, 1, 7, 0, 5, 2, 6, 4])
    turned = method.image_losses((images[0][turn], images[1][turn]), [n[turn] for n in noise])
    for name, loss in method.image_losses(images, noise).items():
        torch.testing.assert_close(turned[name], loss)


def test_noise_follows_from_seed_stage_and_iteration(monkeypatch: pytest.MonkeyPatch) -> None:
    method = tiny()
    images = method.by_modality(batch())
    state = torch.get_rng_state()
    first = method.noise(images, Progress(stage=0, iteration=3))
    assert torch.get_rng_state().equal(state)
    assert [n.shape for n in first] == [(8, 16, 16, 8)] * 6
    assert all(not a.equal(b) for i, a in enumerate(first) for b in first[:i])
    torch.manual_seed(5)
    assert all(a.equal(b) for a, b in zip(first, method.noise(images, Progress(iteration=3)), strict=True))
    for other in (Progress(iteration=4), Progress(stage=2, iteration=3)):
        assert not any(a.equal(b) for a, b in zip(first, method.noise(images, other), strict=True))
    restored = D2RL(4, (1, 2), **D2RL.tiny)  # pyright: ignore[reportArgumentType]
    assert not restored.noise(images, Progress(iteration=3))[0].equal(first[0])
    restored.load_state_dict(method.state_dict())
    assert restored.noise(images, Progress(iteration=3))[0].equal(first[0])
    big = torch.cat(method.noise(images, Progress())[:2])
    assert abs(float(big.mean())) < 0.02 and abs(float(big.std()) - 1) < 0.02
    monkeypatch.setattr(distributed, "world", lambda: 2)
    halves = []
    for rank in (0, 1):
        monkeypatch.setattr(distributed, "rank", lambda rank=rank: rank)
        own = slice(4 * rank, 4 * rank + 4)
        halves.append(method.noise((images[0][own], images[1][own]), Progress(iteration=3)))
    assert all(torch.cat([a, b]).equal(whole) for a, b, whole in zip(*halves, first, strict=True))


def test_shared_latent_is_one_block_of_both() -> None:
    apart, together = Translators(4, 2), Translators(4, 2, share_latent=True)
    count = [sum(p.numel() for p in module.parameters()) for module in (apart, together)]
    block = sum(p.numel() for p in together.last_encoding.parameters())
    assert block and count[0] - count[1] == 2 * block  # two of four blocks per side of the latent space are left
    x = torch.rand(1, 1, 16, 8)
    (gradient,) = torch.autograd.grad(
        together.encode(x, INFRARED).sum(), [together.last_encoding[0].second.conv.weight]
    )  # pyright: ignore
    assert gradient.any()
    method = tiny(share_latent=True, image_blocks=2)
    listed = [id(p) for group in method.params().values() for p in group]
    assert sorted(listed) == sorted(id(p) for p in method.parameters() if p.requires_grad)
    assert moved(weights(method), method) == set() and take(method, 0)


# --- unified images ---------------------------------------------------------------------------------------------------


def test_unified_image_is_red_green_blue_infrared_whatever_it_came_from() -> None:
    network, given = tiny().embedder, batch()
    mixed = torch.randperm(16, generator=torch.Generator().manual_seed(1))
    images, modality = given.images[mixed], given.modality[mixed]
    unified = network.unify(images, modality)
    assert unified.shape == (16, 4, 64, 32)
    for row in range(16):
        x = images[row : row + 1]
        if modality[row] == VISIBLE:
            made = network.translators.generators[INFRARED](network.translators.encoders[VISIBLE](x))
            expected = torch.cat([x, made], 1)
        else:
            gray = x.mean(1, keepdim=True)
            made = network.translators.generators[VISIBLE](network.translators.encoders[INFRARED](gray))
            expected = torch.cat([made, gray], 1)
        torch.testing.assert_close(unified[row : row + 1], expected, rtol=1e-4, atol=1e-5)


def test_exported_selection_equals_the_one_by_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    given = batch()
    for zeroed in (False, True):
        network = tiny(zero_translated=zeroed).embedder
        by_rows = network.unify(given.images, given.modality)
        monkeypatch.setattr(torch.compiler, "is_exporting", lambda: True)
        torch.testing.assert_close(network.unify(given.images, given.modality), by_rows, rtol=1e-4, atol=1e-5)
        monkeypatch.undo()


def seen_by_stem(network: UnifiedResNet, images: Tensor, modality: Tensor, layer: str) -> Tensor:
    """What the four-channel convolution gets for a layer."""
    seen: list[Tensor] = []
    handle = network.stem.register_forward_pre_hook(lambda module, args: seen.append(args[0].detach()))
    network.layers(network.normalize(images), modality)
    handle.remove()
    return seen[{"neck": 0, "translated-zeroed": 1}[layer]]


def test_pixels_become_symmetric_once_and_imagenet_s_for_the_feature_level() -> None:
    network = tiny().embedder.eval()
    images = torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images[2:] = images[2:, :1]
    modality = torch.tensor([0, 0, 1, 1])
    training = Symmetric()({"images": images}, torch.Generator())["images"]
    torch.testing.assert_close(network.normalize(images), training, rtol=0, atol=1e-6)
    assert float(training.min()) == -1 and float(training.max()) == 1
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (IMAGENET_MEAN, IMAGENET_STD))
    with torch.no_grad():
        x = seen_by_stem(network, images, modality, "neck")
        made = network.translators.translate(training[2:, :1], INFRARED)
    torch.testing.assert_close(x[:2, :3], (images[:2] / 255 - mean) / std, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x[2:, 3], (images[2:, 0] / 255 - 0.449) / 0.226, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(x[2:, :3], ((made + 1) / 2 - mean) / std, rtol=1e-4, atol=1e-5)


def test_control_does_not_see_translations() -> None:
    network = tiny().embedder.eval()
    images = torch.randint(0, 256, (4, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    modality = torch.tensor([0, 1, 1, 0])
    with torch.no_grad():
        x, whole = (seen_by_stem(network, images, modality, name) for name in ("translated-zeroed", "neck"))
        assert not x[modality == VISIBLE, 3].any() and not x[modality == INFRARED, :3].any()
        assert x[modality == VISIBLE, :3].equal(whole[modality == VISIBLE, :3]) and x[modality == INFRARED, 3].any()
        first = network.layers(network.normalize(images), modality)
        assert list(first) == ["neck", "pooled", "translated-zeroed"]
        expected = network.neck(network.pool(network.trunk(network.stem(x))))
        torch.testing.assert_close(first["translated-zeroed"], expected)
        for p in network.translators.parameters():
            p.normal_()
        second = network.layers(network.normalize(images), modality)
        assert second["translated-zeroed"].equal(first["translated-zeroed"])
        assert not second["neck"].equal(first["neck"])
        assert network(images, modality).equal(second["neck"])


def test_trained_control() -> None:
    method, given = tiny(zero_translated=True), batch()
    network = method.embedder
    unified = network.unify(given.images, given.modality)
    losses = method.feature_losses(unified, given)
    params = list(network.translators.parameters())
    gradients = torch.autograd.grad(
        torch.stack(list(losses.values())).sum(), [network.stem.conv1.weight, *params], allow_unused=True
    )
    assert gradients[0].any() and not any(g is not None and g.any() for g in gradients[1:])
    network.eval()
    layers = network.layers(given.images, given.modality)
    assert list(layers) == ["neck", "pooled"]
    other = tiny().embedder
    other.load_state_dict(network.state_dict())
    torch.testing.assert_close(layers["neck"], other.eval().layers(given.images, given.modality)["translated-zeroed"])
