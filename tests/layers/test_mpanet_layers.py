"""MPANet's networks: recorded gate and patterns, and the whole network written out under the released names."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from torch import Tensor

from vireid.layers.embedder import load_embedder, save_embedder
from vireid.layers.mpanet import Gate, PatternNet, load_pattern_net

TINY = {"width": 4, "blocks": (1, 1, 1, 1)}


def official_state(width: int = 4, num_pids: int = 7) -> dict[str, Tensor]:
    """Random tensors of a released checkpoint whose channels are divided by 64 / width, full depth."""
    shrink = 64 // width
    state = {}
    generator = torch.Generator().manual_seed(0)
    for name, shape in json.loads((GOLDEN / "mpanet_state_keys.json").read_text()).items():
        sizes = [n if n in (1, 3, 6, 7) else num_pids if n == 395 else n // shrink for n in shape]
        if not sizes:
            state[name] = torch.tensor(3)
        elif name.endswith(("running_var", "bn1.weight", "bn2.weight", "bn3.weight", "bn_neck.weight", "1.weight")):
            state[name] = torch.rand(sizes, generator=generator) + 0.5
        else:
            state[name] = torch.randn(sizes, generator=generator) * (0.1 if len(sizes) > 1 else 0.3)
    return state


def test_recorded_gate() -> None:
    golden = np.load(GOLDEN / "mpanet_mam.npz")
    gate = Gate(32).double()
    gate.load_state_dict({"squeeze.weight": torch.tensor(golden["w1"]), "excite.weight": torch.tensor(golden["w2"])})
    x = torch.tensor(golden["x"], requires_grad=True)
    y = gate(x)
    np.testing.assert_allclose(y.detach(), golden["y"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(gate.eval()(x).detach(), golden["y"], rtol=1e-9, atol=1e-12)
    y.backward(torch.tensor(golden["grad_out"]))
    np.testing.assert_allclose(x.grad, golden["grad_x"], rtol=1e-9, atol=1e-12)


def test_recorded_patterns_with_the_global_vector_last() -> None:
    golden = np.load(GOLDEN / "mpanet_pam.npz")
    network = PatternNet(**TINY).double()
    assert network.patterns is not None
    network.patterns.load_state_dict({"weight": torch.tensor(golden["conv_w"]), "bias": torch.tensor(golden["conv_b"])})
    maps = torch.tensor(golden["fmap"], requires_grad=True)
    masks, pooled = network.pool(maps)
    assert masks.shape == (5, 6, 6, 2)
    np.testing.assert_allclose(pooled.detach(), golden["feat"], rtol=1e-9)
    torch.testing.assert_close(pooled[:, -128:], maps.mean((2, 3)))
    pooled.backward(torch.tensor(golden["grad_out"]))
    np.testing.assert_allclose(maps.grad, golden["grad_fmap"], rtol=1e-9, atol=1e-13)


def norm(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    w, b, m, v = (state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var"))
    shape = (1, -1, *[1] * (x.dim() - 2))
    return (x - m.view(shape)) / (v.view(shape) + 1e-5).sqrt() * w.view(shape) + b.view(shape)


def gated(x: Tensor, state: dict[str, Tensor], name: str) -> Tensor:
    hidden = F.relu(F.conv2d(F.adaptive_avg_pool2d(x, 1), state[f"{name}.channel_attention.0.weight"]))
    m = torch.sigmoid(F.conv2d(hidden, state[f"{name}.channel_attention.2.weight"]))
    return m * x + (1 - m) * F.instance_norm(x, eps=1e-5)


def written_out(x: Tensor, state: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Pooled and embedding in evaluation mode, straight from the released names."""
    x = F.relu(norm(F.conv2d(x, state["backbone.conv1.weight"], stride=2, padding=3), state, "backbone.bn1"))
    x = F.max_pool2d(x, 3, 2, 1)
    for layer, (count, first_stride) in enumerate(((3, 1), (4, 2), (6, 2), (3, 1)), start=1):
        for block in range(count):
            name = f"backbone.layer{layer}.{block}"
            stride = first_stride if block == 0 else 1
            y = F.relu(norm(F.conv2d(x, state[f"{name}.conv1.weight"]), state, f"{name}.bn1"))
            y = F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            y = F.relu(norm(y, state, f"{name}.bn2"))
            y = norm(F.conv2d(y, state[f"{name}.conv3.weight"]), state, f"{name}.bn3")
            if f"{name}.downsample.0.weight" in state:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(x, state, f"{name}.downsample.1")
            x = F.relu(y + x)
        if layer >= 3:
            x = gated(x, state, f"backbone.MAM{layer}")
    masks = torch.sigmoid(F.conv2d(x, state["spatial_attention.weight"], state["spatial_attention.bias"]))
    parts = [(masks[:, k : k + 1] * x).mean((2, 3)) for k in range(masks.shape[1])]
    pooled = torch.cat([*parts, x.mean((2, 3))], 1)
    return pooled, norm(pooled, state, "bn_neck")


def test_whole_network_is_the_one_under_the_released_names() -> None:
    state = {k: v.double() if v.is_floating_point() else v for k, v in official_state().items()}
    network = PatternNet(width=4).double().eval()
    unused = load_pattern_net(network, state)
    assert sorted(unused) == sorted(k for k in state if "classifier" in k)
    images = torch.randn(3, 3, 96, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    pooled, embedding = written_out(images, state)
    with torch.no_grad():
        encoded = network.encode(images)
    assert encoded.maps.shape == (3, 128, 6, 2) and encoded.masks.shape == (3, 6, 6, 2)
    torch.testing.assert_close(encoded.pooled, pooled, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(encoded.embedding, embedding, rtol=1e-9, atol=1e-12)


def test_published_sizes() -> None:
    with torch.device("meta"):
        network = PatternNet()
    assert network.dim == 14336
    official = json.loads((GOLDEN / "mpanet_state_keys.json").read_text())
    own = {k: list(v.shape) for k, v in network.state_dict().items()}
    assert len(own) == len(official) - 5  # five classifiers belong to the method
    state = {k: torch.empty(v, device="meta") for k, v in official.items()}
    from vireid.layers.mpanet import official_names

    assert {new: official[old] for old, new in official_names(state).items()} == own
    encoded = network.eval().encode(torch.empty(2, 3, 384, 128, device="meta"))
    assert encoded.maps.shape == (2, 2048, 24, 8)
    assert network.encode(torch.empty(2, 3, 256, 128, device="meta")).maps.shape == (2, 2048, 16, 8)


def test_neck_and_patterns_start_as_in_the_released_code() -> None:
    network = PatternNet(**TINY)
    assert network.patterns is not None and network.patterns.bias is not None
    assert not network.patterns.bias.any()
    assert (network.neck.weight == 1).all() and not network.neck.bias.any()
    assert not network.neck.bias.requires_grad and network.neck.weight.requires_grad


@pytest.mark.parametrize(("parts", "gates", "dim"), [(0, 0, 128), (1, 1, 256), (6, 2, 896)])
def test_settings_and_their_file(parts: int, gates: int, dim: int, tmp_path: Path) -> None:
    network = PatternNet(parts=parts, gates=gates, **TINY).eval()
    images, modality = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8), torch.tensor([0, 1])
    with torch.no_grad():
        embedding = network(images, modality)
        assert embedding.shape == (2, dim)
        assert embedding.equal(network(images, 1 - modality))  # both modalities share every weight
        assert list(network.layers(network.normalize(images), modality)) == ["neck", "pooled"]
        save_embedder(network, tmp_path / "embedder.safetensors")
        assert load_embedder(tmp_path / "embedder.safetensors")(images, modality).equal(embedding)


def test_a_map_of_one_position_has_no_style_to_remove() -> None:
    gate = Gate(16)
    y = gate(torch.ones(2, 16, 1, 1))
    assert torch.isfinite(y).all() and (y > 0).all() and (y < 1).all()  # m x, and 0 for the rest


def test_imagenet_weights_fill_stem_and_stages() -> None:
    state = {k.removeprefix("backbone."): v for k, v in official_state().items() if k.startswith("backbone.")}
    state = {k: v for k, v in state.items() if not k.startswith("MAM")} | {"fc.weight": torch.zeros(3, 128)}
    network = PatternNet(width=4)
    gate = network.trunk.state_dict()["gate3.squeeze.weight"].clone()
    assert load_pattern_net(network, state) == ["fc.weight"]
    assert network.trunk.stem.conv1.weight.equal(state["conv1.weight"])
    assert network.trunk.state_dict()["layer4.2.bn3.running_var"].equal(state["layer4.2.bn3.running_var"])
    assert network.trunk.state_dict()["gate3.squeeze.weight"].equal(gate)


def test_faults_are_told() -> None:
    with pytest.raises(ValueError, match="parts`: expected whole number >= 0, got -1"):
        PatternNet(parts=-1, **TINY)
    with pytest.raises(ValueError, match="gates`: expected 0 or 1 or 2, got 3"):
        PatternNet(gates=3, **TINY)
    with pytest.raises(ValueError, match="no known kind"):
        load_pattern_net(PatternNet(**TINY), {"visible.conv1.weight": torch.zeros(1)})
    with pytest.raises(ValueError, match="do not fit"):
        load_pattern_net(PatternNet(width=8), official_state())
