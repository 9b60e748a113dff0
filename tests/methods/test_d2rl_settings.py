"""D2RL: pretrained weights, the saved network, the numbers of its page, settings and sizes that are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_d2rl import tiny
from torch import Tensor

from vireid.layers.d2rl import load_unified
from vireid.layers.embedder import load_embedder, save_embedder
from vireid.layers.unit import Discriminators
from vireid.methods.d2rl import D2RL

pytestmark = pytest.mark.usefixtures("one_thread")


def resnet_state(method: D2RL) -> dict[str, Tensor]:
    """What torchvision's file would hold for a ResNet of this size."""
    generator = torch.Generator().manual_seed(3)
    state = {n: v for n, v in method.embedder.stem.state_dict().items() if n != "conv1.weight"}
    state |= method.embedder.trunk.state_dict() | {
        "conv1.weight": torch.zeros(4, 3, 7, 7),
        "fc.weight": torch.zeros(1000, 128),
    }
    return {
        n: torch.randn(v.shape, generator=generator) if v.is_floating_point() else torch.tensor(7)
        for n, v in state.items()
    }


def test_imagenet_fills_the_feature_level_with_a_widened_first_convolution() -> None:
    method = tiny()
    state, before = resnet_state(method), {n: p.clone() for n, p in method.embedder.translators.named_parameters()}
    assert method.load_weights(state) == ["fc.weight"]
    conv1 = method.embedder.stem.conv1.weight
    assert conv1[:, :3].equal(state["conv1.weight"] * 0.75)
    torch.testing.assert_close(conv1[:, 3], state["conv1.weight"].sum(1) / 4)
    gray = torch.rand(2, 1, 16, 16)
    torch.testing.assert_close(
        method.embedder.stem.conv1(gray.expand(-1, 4, -1, -1)),
        F.conv2d(gray.expand(-1, 3, -1, -1), state["conv1.weight"], stride=2, padding=3),
    )
    assert method.embedder.trunk.layer4[0].conv3.weight.equal(state["layer4.0.conv3.weight"])  # pyright: ignore
    assert all(p.equal(before[n]) for n, p in method.embedder.translators.named_parameters())
    with pytest.raises(ValueError, match="of no known kind: expected the names of torchvision's resnet50"):
        method.load_weights({"base_resnet.base.layer1.0.conv1.weight": torch.zeros(1)})
    del state["layer4.0.conv3.weight"]
    with pytest.raises(ValueError, match=r"layer4.0.conv3.weight .* is missing"):
        method.load_weights(state)


@pytest.mark.parametrize("settings", [{}, {"share_latent": True}, {"zero_translated": True}])
def test_file_gives_the_same_network_back(tmp_path: Path, settings: dict) -> None:
    network = tiny(**settings).embedder.eval()
    save_embedder(network, tmp_path / "embedder.safetensors")
    again = load_embedder(tmp_path / "embedder.safetensors")
    images, modality = torch.full((2, 3, 64, 32), 100, dtype=torch.uint8), torch.tensor([0, 1])
    with torch.no_grad():
        assert again(images, modality).equal(network(images, modality))
    other = tiny(**settings)
    for p in other.parameters():
        torch.nn.init.zeros_(p)
    assert load_unified(other.embedder, again.state_dict()) == []
    assert all(v.equal(again.state_dict()[k]) for k, v in other.embedder.state_dict().items())


def test_numbers_of_the_page() -> None:
    with torch.device("meta"):
        method = D2RL(395)
    count = sum(p.numel() for p in method.parameters())
    deployed = sum(p.numel() for p in method.embedder.parameters())
    assert (count, deployed) == (63_128_842, 45_783_684)
    docs = Path(__file__).parents[2] / "docs" / "methods"
    for page in ("d2rl.md", "d2rl.zh.md"):
        text = (docs / page).read_text("utf-8")
        assert f"{count:,}" in text and f"{deployed:,}" in text


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"recon": -1.0}, "`recon`: expected number >= 0, got -1.0"),
        ({"recon": 0.0, "cycle": 0.0, "gan": 0.0}, "one of the weights recon, gan and cycle must be above 0"),
        ({"lambda_f": 0.0}, "`lambda_f`: expected number > 0"),
        ({"image_every": 0}, "`image_every`: expected whole number >= 1"),
        ({"label_smoothing": 1.0}, "`label_smoothing`: expected number >= 0 and < 1"),
        ({"image_blocks": 0}, "`image_blocks`: expected whole number >= 1"),
        ({"scales": 0}, "`scales`: expected whole number >= 1"),
        ({"blocks": (1, 1)}, "`blocks`: expected list of 4 whole numbers >= 1"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_wrong_images_are_refused() -> None:
    network = tiny().embedder.eval()
    with pytest.raises(ValueError, match="multiples of 4, got 66x32; change size"):
        network(torch.zeros(1, 3, 66, 32, dtype=torch.uint8), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"modality must be 0 \(visible\) or 1 \(infrared\), got \[2\]"):
        network(torch.zeros(1, 3, 64, 32, dtype=torch.uint8), torch.tensor([2]))


@pytest.mark.parametrize(("height", "width"), [(96, 48), (64, 64), (128, 60), (64, 33), (96, 32), (48, 24), (260, 68)])
@pytest.mark.parametrize(("scales", "layers"), [(1, 4), (2, 3), (3, 4), (3, 3), (4, 2)])
def test_size_check_says_what_the_discriminators_take(height: int, width: int, scales: int, layers: int) -> None:
    critics = Discriminators(2, layers, scales)
    images = torch.zeros(1, 3, height, width)
    try:
        maps = critics[0](images)
    except ValueError as error:
        assert "reflection by 1" in str(error)
        with pytest.raises(ValueError, match=rf"{height}x{width} are too small .* of scales={scales} and"):
            critics.check_size(height, width)
    else:
        assert len(maps) == scales
        critics.check_size(height, width)
