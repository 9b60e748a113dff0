"""The two-stream network: an independent functional recomputation, mixed batches, official names, precision."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from torch import Tensor

from vireid.layers.embedder import load_embedder, save_embedder
from vireid.layers.two_stream import TwoStream
from vireid.layers.two_stream_weights import from_official, load_two_stream

BLOCKS = (3, 4, 6, 3)


def official_state(width: int = 4, num_pids: int = 6, seed: int = 0) -> dict[str, Tensor]:
    """A random checkpoint under the released code's names, all of them, with every channel count scaled to `width`."""
    full = json.loads((GOLDEN / "agw_state_keys.json").read_text())
    generator = torch.Generator().manual_seed(seed)
    state: dict[str, Tensor] = {}
    for name, shape in full.items():
        if name.endswith("num_batches_tracked"):
            state[name] = torch.tensor(3)
            continue
        sizes = {3: 3, 7: 7, 1: 1, 1000: 1000, 395: num_pids}
        scaled = [sizes.get(n, n * width // 64) for n in shape]
        value = torch.randn(scaled, generator=generator)
        if name.endswith("running_var"):
            value = 0.5 + value.square()
        elif len(scaled) == 4:
            value = value * (2 / (scaled[1] * scaled[2] * scaled[3])) ** 0.5
        elif name.endswith("weight") and len(scaled) == 1:
            value = 1 + 0.1 * value
        state[name] = value
    return state


def by_hand(state: dict[str, Tensor], x: Tensor, stem: str, train: bool) -> Tensor:
    """Maps of the released network from its own state dict in plain functional torch; one modality's rows `x`.

    With train=True, `x` are maps behind the stems of the whole batch (stem is then empty).
    """

    def bn(y: Tensor, name: str) -> Tensor:
        mean, var = state[name + ".running_mean"], state[name + ".running_var"]
        if train:
            dims = [d for d in range(y.dim()) if d != 1]
            mean, var = y.mean(dims), y.var(dims, unbiased=False)
        shape = (1, -1, *[1] * (y.dim() - 2))
        scaled = (y - mean.view(shape)) / (var.view(shape) + 1e-5).sqrt()
        return scaled * state[name + ".weight"].view(shape) + state[name + ".bias"].view(shape)

    def conv(y: Tensor, name: str, **settings: int) -> Tensor:
        return F.conv2d(y, state[name + ".weight"], state.get(name + ".bias"), **settings)

    def attend(y: Tensor, name: str) -> Tensor:
        t, p, g = (conv(y, f"{name}.{part}").flatten(2) for part in ("theta", "phi", "g.0"))
        affinity = torch.einsum("nci,ncj->nij", t, p) / t.shape[2]
        seen = torch.einsum("nij,ncj->nci", affinity, g).unflatten(2, y.shape[2:])
        return bn(conv(seen, f"{name}.W.0"), f"{name}.W.1") + y

    if stem:
        x = F.max_pool2d(bn(conv(x, f"{stem}.conv1", stride=2, padding=3), f"{stem}.bn1").relu(), 3, 2, 1)
        if train:
            return x
    for layer, blocks in enumerate(BLOCKS, 1):
        for block in range(blocks):
            name = f"base_resnet.base.layer{layer}.{block}"
            stride = 2 if block == 0 and layer in (2, 3) else 1
            y = bn(conv(x, f"{name}.conv1"), f"{name}.bn1").relu()
            y = bn(conv(y, f"{name}.conv2", stride=stride, padding=1), f"{name}.bn2").relu()
            y = bn(conv(y, f"{name}.conv3"), f"{name}.bn3")
            if block == 0:
                x = bn(conv(x, f"{name}.downsample.0", stride=stride), f"{name}.downsample.1")
            x = (x + y).relu()
            position = block - {2: 2, 3: 3}.get(layer, 99)
            if position >= 0:
                x = attend(x, f"NL_{layer}.{position}")
    return x


@pytest.fixture(scope="module")
def tiny() -> tuple[TwoStream, dict[str, Tensor]]:
    state = {k: v.double() if v.is_floating_point() else v for k, v in official_state().items()}
    network = TwoStream(width=4).double()
    load_two_stream(network, state)
    return network, state


STEMS = ("visible_module.visible", "thermal_module.thermal")


def test_evaluation_equals_the_functional_network(tiny: tuple[TwoStream, dict[str, Tensor]]) -> None:
    network, state = tiny
    network.eval()
    x = torch.randn(4, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    modality = torch.tensor([1, 0, 0, 1])
    with torch.no_grad():
        encoded = network.encode(x, modality)
        for i, m in enumerate(modality.tolist()):
            maps = by_hand(state, x[i : i + 1], STEMS[m], train=False)
            torch.testing.assert_close(encoded.maps[i : i + 1], maps, rtol=1e-9, atol=1e-10)
            pooled = (maps.pow(3).mean((2, 3)) + 1e-12).pow(1 / 3)
            torch.testing.assert_close(encoded.pooled[i : i + 1], pooled, rtol=1e-9, atol=1e-10)
        neck = (encoded.pooled - state["bottleneck.running_mean"]) / (state["bottleneck.running_var"] + 1e-5).sqrt()
        neck = neck * state["bottleneck.weight"] + state["bottleneck.bias"]
        torch.testing.assert_close(encoded.embedding, neck, rtol=1e-9, atol=1e-10)
        layers = network.layers(x, modality)
    assert list(layers) == ["neck", "pooled"] and layers["neck"].equal(encoded.embedding)


def test_training_equals_the_functional_network(tiny: tuple[TwoStream, dict[str, Tensor]]) -> None:
    network, state = tiny
    network = network.train()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    x = torch.randn(6, 3, 64, 32, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    modality = torch.tensor([1, 0, 1, 1, 0, 0])
    maps = network.encode(x, modality).maps.detach()
    stems = x.new_zeros(6, 4, 16, 8)
    for m, stem in enumerate(STEMS):
        stems[modality == m] = by_hand(state, x[modality == m], stem, train=True)
    torch.testing.assert_close(maps, by_hand(state, stems, "", train=True), rtol=1e-8, atol=1e-9)
    # the visible stem's statistics have seen visible rows only
    conv = F.conv2d(x[modality == 0], state["visible_module.visible.conv1.weight"], stride=2, padding=3)
    expected = 0.9 * before["visible.bn1.running_mean"] + 0.1 * conv.mean((0, 2, 3))
    torch.testing.assert_close(network.visible.bn1.running_mean, expected)
    network.load_state_dict(before)


def test_layers_are_reachable_by_hooks(tiny: tuple[TwoStream, dict[str, Tensor]]) -> None:
    network, _ = tiny
    network.eval()
    seen: list[tuple[str, tuple[int, ...]]] = []
    trunk = network.trunk
    parts = {"layer1": trunk.layer1, "layer4": trunk.layer4}
    parts |= {f"nl2_{i}": part for i, part in enumerate(trunk.nonlocal2)}
    parts |= {f"nl3_{i}": part for i, part in enumerate(trunk.nonlocal3)}

    def note(name: str) -> Callable[..., None]:
        return lambda module, given, output: seen.append((name, tuple(output.shape[1:])))

    hooks = [part.register_forward_hook(note(name)) for name, part in parts.items()]
    with torch.no_grad():
        network.encode(torch.zeros(1, 3, 64, 32, dtype=torch.float64), torch.tensor([0]))
    for hook in hooks:
        hook.remove()
    second, third = (32, 8, 4), (64, 4, 2)
    shapes = {"layer1": (16, 16, 8), "nl2_0": second, "nl2_1": second, **{f"nl3_{i}": third for i in range(3)}}
    assert seen == [*shapes.items(), ("layer4", (128, 4, 2))]


def test_row_order_and_company_change_nothing_in_evaluation(tiny: tuple[TwoStream, dict[str, Tensor]]) -> None:
    network, _ = tiny
    network.eval()
    images = torch.randint(0, 256, (5, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(3))
    modality = torch.tensor([0, 1, 1, 0, 1])
    with torch.no_grad():
        together = network(images, modality)
        order = torch.tensor([3, 0, 4, 2, 1])
        torch.testing.assert_close(network(images[order], modality[order]), together[order])
        for m in (0, 1):
            rows = modality == m
            torch.testing.assert_close(network(images[rows], modality[rows]), together[rows])
        assert not torch.allclose(network(images, 1 - modality), together)


def test_row_order_changes_nothing_in_training() -> None:
    torch.manual_seed(0)
    network = TwoStream(width=4, blocks=(1, 1, 1, 1)).double()
    x = torch.randn(6, 3, 32, 32, dtype=torch.float64)
    modality = torch.tensor([0, 1, 0, 1, 1, 0])
    order = torch.tensor([5, 3, 1, 0, 2, 4])
    first = network.encode(x, modality).embedding
    torch.testing.assert_close(network.encode(x[order], modality[order]).embedding, first[order])


def test_used_part_has_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = TwoStream()
    assert sum(p.numel() for p in network.parameters()) + 395 * network.dim == 24_359_311


def test_every_official_name_and_shape_has_its_place() -> None:
    official = json.loads((GOLDEN / "agw_state_keys.json").read_text())
    with torch.device("meta"):
        own = {name: list(value.shape) for name, value in TwoStream().state_dict().items()}
    named = from_official(official)
    assert len(set(named.values())) == len(named)
    assert {new: official[old] for old, new in named.items()} == own


def test_unused_official_names_are_reported(tiny: tuple[TwoStream, dict[str, Tensor]]) -> None:
    network, state = tiny
    unused = load_two_stream(network, state)
    assert "classifier.weight" in unused and "visible_module.visible.layer1.0.conv1.weight" in unused
    assert "base_resnet.base.conv1.weight" in unused and "NL_2.0.theta.weight" not in unused
    assert len(unused) == len(state) - len(network.state_dict())


def resnet_state(width: int = 4) -> dict[str, Tensor]:
    prefix = "base_resnet.base."
    return {k.removeprefix(prefix): v for k, v in official_state(width).items() if k.startswith(prefix)}


def test_imagenet_names_fill_both_stems_and_the_trunk() -> None:
    state = {k: v for k, v in resnet_state().items() if not k.endswith("num_batches_tracked")}  # as the old file
    network = TwoStream(width=4)
    gamma = network.neck.weight.detach().clone()
    unused = load_two_stream(network, state)
    assert sorted(unused) == sorted(k for k in state if k.startswith("fc."))
    for stem in (network.visible, network.infrared):
        assert stem.conv1.weight.equal(state["conv1.weight"])
        assert stem.bn1.running_var is not None and stem.bn1.running_var.equal(state["bn1.running_var"])
    last = network.trunk.state_dict()["layer4.2.conv3.weight"]
    assert last.equal(state["layer4.2.conv3.weight"])
    assert network.neck.weight.equal(gamma)


def test_weights_of_another_size_are_refused_before_anything_changes() -> None:
    network = TwoStream(width=8)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    with pytest.raises(ValueError, match=r"visible.conv1.weight should have shape \(8, 3, 7, 7\)") as error:
        load_two_stream(network, resnet_state(4))
    assert "(4, 3, 7, 7)" in str(error.value) and "more" in str(error.value)
    assert all(v.equal(before[k]) for k, v in network.state_dict().items())


def test_weights_of_unknown_names_are_refused() -> None:
    with pytest.raises(ValueError, match=r"no known kind.*first names are backbone.weight"):
        load_two_stream(TwoStream(width=4, blocks=(1, 1, 1, 1)), {"backbone.weight": torch.zeros(1)})


@pytest.mark.parametrize(
    ("blocks", "attention", "counts"), [((1, 1, 1, 1), True, (1, 1)), (BLOCKS, True, (2, 3)), (BLOCKS, False, (0, 0))]
)
def test_non_local_blocks_follow_the_depth(blocks: tuple[int, ...], attention: bool, counts: tuple[int, int]) -> None:
    trunk = TwoStream(width=4, blocks=blocks, attention=attention).trunk
    assert (len(trunk.nonlocal2), len(trunk.nonlocal3)) == counts


@pytest.mark.parametrize("settings", [{}, {"pooling": "gem-learned", "nonlocal_width": "half", "last_stride": 2}])
def test_file_gives_the_same_network_back(tmp_path: Path, settings: dict) -> None:
    network = TwoStream(width=4, blocks=(1, 2, 1, 1), **settings).eval()
    save_embedder(network, tmp_path / "embedder.safetensors")
    again = load_embedder(tmp_path / "embedder.safetensors")
    images, modality = torch.full((2, 3, 64, 32), 100, dtype=torch.uint8), torch.tensor([0, 1])
    with torch.no_grad():
        assert again(images, modality).equal(network(images, modality))


def test_autocast_pools_in_float32() -> None:
    network = TwoStream(width=4, blocks=(1, 1, 1, 1))
    with torch.autocast("cpu", torch.bfloat16):
        encoded = network.encode(torch.randn(4, 3, 32, 32), torch.tensor([0, 0, 1, 1]))
    assert encoded.maps.dtype == torch.bfloat16 and encoded.pooled.dtype == torch.float32


def test_a_third_modality_is_refused_in_training() -> None:
    network = TwoStream(width=4, blocks=(1, 1, 1, 1))
    with pytest.raises(ValueError, match=r"modality must be 0 \(visible\) or 1 \(infrared\), got \[0, 2\]"):
        network.encode(torch.randn(2, 3, 32, 32), torch.tensor([0, 2]))
