"""NFormer's network: recorded arrays, the dense form, landmarks, memory, files, and the form for live search."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dense_nformer import dense, dense_form
from golden_files import GOLDEN
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from vireid.layers import neighbors as neighbors_module
from vireid.layers import nformer as module
from vireid.layers.neighbors import mutual_neighbors, reciprocal
from vireid.layers.nformer import (
    NeighborLayer,
    NeighborTransformer,
    NFormerRefiner,
    from_released,
    landmark_affinity,
    neighbor_softmax,
)
from vireid.layers.nformer_query import RefinedGallery
from vireid.layers.refiner import load_refiner, save_refiner

LAYER = {"attn.c_attn": "qkv", "attn.c_proj": "out", "mlp.c_fc": "widen", "mlp.c_proj": "narrow",
         "ln_1": "attention_norm", "ln_2": "norm"}  # fmt: skip
exact = {"rtol": 0, "atol": 1e-9}


def recorded(name: str) -> dict[str, Tensor]:
    with np.load(GOLDEN / f"nformer_{name}.npz") as file:
        return {key: torch.from_numpy(file[key]) for key in file.files}


def as_lists(mask: Tensor) -> Tensor:
    """A mask (N, M) as lists (N, m)."""
    rows = [row.nonzero().squeeze(1) for row in mask]
    return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-1)


def of_sets(masks: Tensor) -> Tensor:
    """Masks (S, N, N) as lists (S N, m) of flattened rows."""
    return as_lists(torch.block_diag(*masks.int()) > 0)


def refiner(**settings: object) -> NFormerRefiner:
    """A small one in float64 whose weights and batch statistics are far from their start."""
    torch.manual_seed(0)
    made = NFormerRefiner(**{"dim": 12, "width": 8, "depth": 3, "landmarks": 4, "k": 8, "k_cross": 4, **settings})
    with torch.no_grad():
        for p in made.parameters():
            p.add_(0.3 * torch.randn_like(p))
        for neck in (made.projection_neck, made.transformer.neck):
            assert neck.running_mean is not None and neck.running_var is not None
            neck.running_mean.normal_()
            neck.running_var.uniform_(0.5, 2)
    return made.double().eval()


def people(count: int = 60, dim: int = 12, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, dim, dtype=torch.float64, generator=generator)
    return x, (torch.rand(count, generator=generator) < 0.4).long()


# --- recorded arrays --------------------------------------------------------------------------------------------------


def test_recorded_affinity() -> None:
    given = recorded("laa_affinity")
    q, k = given["q"].transpose(1, 2), given["k_transposed"].permute(0, 3, 1, 2)  # (S, N, H, d_h)
    everybody = of_sets(torch.ones(2, 12, 12))
    found = landmark_affinity(q, k, everybody, given["landmarks"].expand(2, -1))  # (S N, H, 12)
    expected = given["affinity"].transpose(1, 2).flatten(0, 1)
    torch.testing.assert_close(found, expected, **exact)


def test_recorded_softmax_and_its_gradients() -> None:
    given = recorded("rns")
    neighbors = of_sets(given["mask"][:, 0])
    affinity = given["affinity"].requires_grad_()
    v = given["v"].requires_grad_()
    local = torch.where(neighbors >= 0, neighbors % 12, 0)
    lists = affinity.transpose(1, 2).flatten(0, 1).gather(2, local[:, None].expand(-1, 2, -1))
    found = neighbor_softmax(lists, v.transpose(1, 2).flatten(0, 1), neighbors)
    for name in ("out_train", "out_eval"):
        torch.testing.assert_close(found, given[name].transpose(1, 2).flatten(0, 1), **exact)
    (found * given["upstream"].transpose(1, 2).flatten(0, 1)).sum().backward()
    torch.testing.assert_close(affinity.grad, given["grad_affinity"], **exact)
    torch.testing.assert_close(v.grad, given["grad_v"], **exact)


def test_recorded_layer_and_its_gradients() -> None:
    given = recorded("encoder_layer")
    layer = NeighborLayer(16, 2, 0.0).double()
    prefix = "transformer.layers.0."
    weights = from_released({f"h.0.{key[2:]}": value for key, value in given.items() if key.startswith("w/")})
    layer.load_state_dict({key.removeprefix(prefix): value for key, value in weights.items()})
    chosen = torch.stack([dense(rows, 14) for rows in given["topk_indices"]])
    neighbors = of_sets(chosen & chosen.mT)
    x = given["x"].requires_grad_()
    y = layer(x, neighbors, given["landmarks"].expand(2, -1))
    torch.testing.assert_close(y, given["y"], **exact)
    (y * given["upstream"]).sum().backward()
    torch.testing.assert_close(x.grad, given["grad_x"], **exact)
    grads = from_released({f"h.0.{key[5:]}": value for key, value in given.items() if key.startswith("grad/")})
    named = dict(layer.named_parameters())
    assert {key.removeprefix(prefix) for key in grads} == set(named)
    for key, value in grads.items():
        torch.testing.assert_close(named[key.removeprefix(prefix)].grad, value, **exact)


# --- lists equal matrices ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("k_cross", [None, 4])
@pytest.mark.parametrize("block_bytes", [1 << 26, 500])
def test_equals_the_dense_form(monkeypatch: pytest.MonkeyPatch, k_cross: int | None, block_bytes: int) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    network, (x, modality) = refiner(k_cross=k_cross), people()
    with torch.no_grad():
        tokens = network.tokens(x)
        mask = dense(mutual_neighbors(tokens, 8, k_cross, modality), 60)
        _, refined = dense_form(network.transformer, tokens, mask, network.draws_of(modality)[0])
        expected = refined / refined.norm(dim=1, keepdim=True)
        torch.testing.assert_close(network(x, modality), expected, **exact)


@pytest.mark.parametrize("block_bytes", [1 << 26, 500])
def test_gradients_equal_those_of_the_dense_form(monkeypatch: pytest.MonkeyPatch, block_bytes: int) -> None:
    monkeypatch.setattr(module, "BLOCK_BYTES", block_bytes)
    network, (x, modality) = refiner(), people()
    lists = mutual_neighbors(x[:, :8], 8, 4, modality)
    landmarks = network.draw(modality, torch.Generator().manual_seed(5))
    weight = torch.randn(60, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(6))
    grads = []
    for form in ("lists", "dense"):
        given = x[:, :8].clone().requires_grad_()
        if form == "lists":
            tokens = network.transformer(given[None], lists, landmarks).tokens[0]
        else:
            tokens, _ = dense_form(network.transformer, given, dense(lists, 60), landmarks)
        params = [p for p in network.transformer.layers.parameters()]
        grads.append(torch.autograd.grad((tokens * weight).sum(), [given, *params]))
    for found, expected in zip(*grads, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)


class Largest(TorchDispatchMode):
    """Notes the largest number of values that any operation gives back."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # pyright: ignore
        out = func(*args, **(kwargs or {}))
        found = [x.numel() for x in (out if isinstance(out, tuple | list) else [out]) if isinstance(x, Tensor)]
        self.most = max([self.most, *found])
        return out


def test_memory_grows_with_the_images_not_with_their_square(monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (module, neighbors_module):
        monkeypatch.setattr(place, "BLOCK_BYTES", 1 << 18)
    network = refiner(heads=1, depth=2, landmarks=2, k=6, k_cross=3)
    for count in (1000, 2000):
        x, modality = people(count)
        with Largest() as seen:
            tokens = network.tokens(x)
            lists = mutual_neighbors(tokens, 6, 3, modality)
            network.transformer(tokens[None], lists, network.draws_of(modality)[0]).tokens.sum().backward()
        assert 4 * 8 * count <= seen.most <= 8 * 8 * count  # the widest of the layers, 4 x width
        assert seen.most < count**2 / 10


def test_sets_do_not_see_each_other() -> None:
    network = refiner()
    (a, kinds), (b, others) = people(), people(seed=1)
    tokens, modality = network.tokens(torch.cat([a, b])).view(2, 60, 8), torch.stack([kinds, others])
    landmarks = torch.stack([network.draw(m, torch.Generator().manual_seed(s)) for s, m in enumerate(modality)], 1)
    both = network.transformer(tokens, mutual_neighbors(tokens, 8, 4, modality), landmarks)
    for s in range(2):
        alone = network.transformer(tokens[s][None], mutual_neighbors(tokens[s], 8, 4, modality[s]), landmarks[:, s])
        torch.testing.assert_close(both.refined[s], alone.refined[0], **exact)


def test_layers_start_as_copies_and_follow_all_tokens() -> None:
    network = NeighborTransformer(8, 2, 3, 0.1)
    first, *others = (layer.state_dict() for layer in network.layers)
    assert all(value.equal(other[key]) for other in others for key, value in first.items())
    assert 0.015 < float(first["widen.weight"].std()) < 0.025 and not first["widen.bias"].any()
    assert network.neck.weight.eq(1).all() and not network.neck.bias.requires_grad
    x = torch.randn(2, 30, 8)
    lists = mutual_neighbors(x, 5)
    found = network.train()(x, lists, torch.arange(6).view(3, 2))
    flat = found.tokens.flatten(0, 1)
    torch.testing.assert_close(network.neck.running_mean, 0.1 * flat.mean(0), rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(network.neck.running_var, 0.9 + 0.1 * flat.var(0), rtol=1e-4, atol=1e-6)


def test_dropout_in_training_alone() -> None:
    network, (x, modality) = refiner(dropout=0.5), people()
    assert network(x, modality).equal(network(x, modality))
    network.transformer.train()
    tokens = network.tokens(x)[None]
    lists = mutual_neighbors(tokens[0], 8, 4, modality)
    drawn = network.draws_of(modality)[0]
    assert not network.transformer(tokens, lists, drawn).tokens.equal(network.transformer(tokens, lists, drawn).tokens)


# --- the refiner ------------------------------------------------------------------------------------------------------


def test_row_order_with_its_landmarks_changes_nothing() -> None:
    network, (x, modality) = refiner(), people()
    tokens = network.tokens(x)
    drawn = network.draws_of(modality)
    expected = network.transform(tokens, mutual_neighbors(tokens, 8, 4, modality), drawn)
    torch.testing.assert_close(network(x, modality), expected)
    order = torch.randperm(60, generator=torch.Generator().manual_seed(0))
    moved = [order.argsort()[landmarks] for landmarks in drawn]
    found = network.transform(tokens[order], mutual_neighbors(tokens[order], 8, 4, modality[order]), moved)
    torch.testing.assert_close(found, expected[order], **exact)


def test_landmarks_are_drawn_once_and_half_from_each_modality() -> None:
    network, (_, modality) = refiner(landmarks=5, depth=4, draws=2), people()
    first, second = network.draws_of(modality)
    assert first.shape == (4, 5) and not first.equal(second)
    assert network.draws_of(modality)[0].equal(first)
    for layer, chosen in enumerate(first):
        assert len(chosen.unique()) == 5
        assert int((modality[chosen] == 0).sum()) == (3 if layer % 2 == 0 else 2)  # they take turns
    assert len({tuple(chosen.tolist()) for chosen in first}) == 4
    modality[:] = 0
    modality[7] = 1  # of a modality with too few all are taken
    assert all((chosen == 7).sum() == 1 and len(chosen.unique()) == 5 for chosen in network.draws_of(modality)[0])
    many = torch.tensor([0] * 5000 + [1] * 50)
    plain = refiner(landmarks=8, stratified=False, draws=20).draws_of(many)
    assert float(many[torch.stack(plain)].double().mean()) < 0.1  # uniform over images
    with pytest.raises(ValueError, match="5 landmarks need as many images, got 4"):
        network.draws_of(modality[:4])


def test_average_over_draws() -> None:
    network, (x, modality) = refiner(draws=3, landmark_seed=7), people()
    tokens = network.tokens(x)
    lists = mutual_neighbors(tokens, 8, 4, modality)
    each = []
    for seed in (7, 8, 9):
        landmarks = network.draw(modality, torch.Generator().manual_seed(seed))
        each.append(network.transformer(tokens[None], lists, landmarks).refined[0])
    mean = torch.stack(each).mean(0)
    torch.testing.assert_close(network(x, modality), mean / mean.norm(dim=1, keepdim=True), **exact)
    assert not torch.allclose(each[0], each[1])


def test_vectors_are_projected_and_made_length_one() -> None:
    network, (x, modality) = refiner(), people()
    neck = network.projection_neck
    assert isinstance(network.projection, torch.nn.Linear) and neck.running_mean is not None
    assert neck.running_var is not None
    plain = x @ network.projection.weight.T + network.projection.bias
    plain = (plain - neck.running_mean) / (neck.running_var + neck.eps).sqrt() * neck.weight + neck.bias
    torch.testing.assert_close(network.tokens(x), plain / plain.norm(dim=1, keepdim=True), **exact)
    assert isinstance(refiner(dim=8).projection, torch.nn.Identity)
    torch.testing.assert_close(network(x, modality).norm(dim=1), torch.ones(60, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"vectors of 12 numbers, got \(60, 8\)"):
        network(x[:, :8], modality)


def test_file_gives_the_same_refiner_back(tmp_path: Path) -> None:
    network, (x, modality) = refiner(k_cross=None, draws=2).float(), people()
    save_refiner(network, tmp_path / "refiner.safetensors")
    again = load_refiner(tmp_path / "refiner.safetensors")
    assert not again.training and again.settings == network.settings
    assert again(x.float(), modality).equal(network(x.float(), modality))
    code = (
        "import sys\nfrom pathlib import Path\nfrom vireid.layers.refiner import load_refiner\n"
        "load_refiner(Path(sys.argv[1]))\nassert not [m for m in sys.modules if m.startswith('vireid.methods')]\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "refiner.safetensors")], check=True)


def test_released_names() -> None:
    network = refiner(dim=16)
    state = {"nformer.h.2.mlp.c_proj.w": torch.randn(32, 8), "nformer.h.2.mlp.c_proj.b": torch.randn(8)}
    state |= {"nformer.bottleneck.weight": torch.randn(8), "nformer.h.0.ln_2.g": torch.randn(8)}
    state |= {"backbone.projection.weight": torch.randn(8, 16), "backbone.bottleneck.bias": torch.randn(8)}
    named = from_released({**state, "backbone.base.conv1.weight": torch.randn(1)})
    shapes = {key: value.shape for key, value in network.state_dict().items()}
    assert {key: value.shape for key, value in named.items() if key in shapes} == {
        key: shapes[key]
        for key in (
            "transformer.layers.2.narrow.weight", "transformer.layers.2.narrow.bias", "transformer.neck.weight",
            "transformer.layers.0.norm.weight", "projection.weight", "projection_neck.bias",
        )
    }  # fmt: skip
    assert named["transformer.layers.2.narrow.weight"].equal(state["nformer.h.2.mlp.c_proj.w"].T)
    own = network.state_dict()
    assert all(value.equal(own[key]) for key, value in from_released(own).items())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"heads": 3}, "multiple of heads"),
        ({"depth": 0}, "`depth`: expected whole number >= 1"),
        ({"landmarks": 0}, "`landmarks`: expected whole number >= 1"),
        ({"draws": 0}, "`draws`: expected whole number >= 1"),
        ({"k": 0, "k_cross": None}, "`k`: expected whole number >= 1"),
        ({"k": 4, "k_cross": 4}, "k_cross is from 0 to k - 1 or null, got 4"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        refiner(**settings)


# --- live search ------------------------------------------------------------------------------------------------------


def whole_form(network: NFormerRefiner, gallery: RefinedGallery, x: Tensor, modality: Tensor) -> Tensor:
    """All images together with the gallery's landmarks."""
    tokens = network.tokens(x)
    return network.transform(
        tokens, mutual_neighbors(tokens, network.settings.k, network.settings.k_cross, modality), gallery.draws
    )


@pytest.mark.parametrize("k_cross", [None, 4])
@pytest.mark.parametrize("query_modality", [0, 1])
def test_query_with_a_shortlist_of_everybody_equals_the_whole_form(k_cross: int | None, query_modality: int) -> None:
    network, (x, modality) = refiner(k_cross=k_cross, draws=2), people()
    gallery = RefinedGallery.of(network, x, modality)
    torch.testing.assert_close(gallery.refined, network(x, modality), **exact)
    entered = 0
    for seed in range(5):
        query = x[seed] + 0.3 * people(1, seed=seed + 10)[0][0]
        answer = gallery.refine(query, query_modality, shortlist=60)
        together = torch.cat([modality, torch.tensor([query_modality])])
        expected = whole_form(network, gallery, torch.cat([x, query[None]]), together)
        torch.testing.assert_close(answer.query, expected[-1], **exact)
        torch.testing.assert_close(answer.gallery, expected[answer.rows], **exact)
        similarity = gallery.tokens @ network.tokens(query[None])[0]
        assert answer.rows.equal(similarity.argsort(descending=True))
        entered += not torch.allclose(answer.gallery, gallery.refined[answer.rows])
    assert entered == 5  # the query changes images of the gallery too


def test_query_among_closed_groups_equals_the_whole_form() -> None:
    """Eight groups far apart, so that neighbors of neighbors stay in the group: a short list is enough."""
    network = refiner(dim=8, k=12, k_cross=6)
    with torch.no_grad():  # tokens are then the vectors themselves, made length 1
        for name, value in (("weight", 1.0), ("bias", 0.0), ("running_mean", 0.0), ("running_var", 1.0)):
            getattr(network.projection_neck, name).fill_(value)
    noise = 0.05 * torch.randn(80, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = torch.eye(8, dtype=torch.float64).repeat(10, 1) + noise
    modality = torch.arange(80) // 8 % 2  # five of each in a group
    gallery = RefinedGallery.of(network, x, modality)
    query = x[3] + 0.02
    answer = gallery.refine(query, 1, shortlist=10)
    assert (answer.rows % 8 == 3).all()
    expected = whole_form(network, gallery, torch.cat([x, query[None]]), torch.cat([modality, torch.tensor([1])]))
    torch.testing.assert_close(answer.query, expected[-1], **exact)
    torch.testing.assert_close(answer.gallery, expected[answer.rows], **exact)
    with pytest.raises(ValueError, match="1 gallery image or more"):
        gallery.refine(query, 1, shortlist=0)


def test_short_list_is_close_to_the_whole_form() -> None:
    network, (x, modality) = refiner(), people(400)
    gallery = RefinedGallery.of(network, x, modality)
    query = x[0] + 0.1
    together = torch.cat([modality, torch.tensor([1])])
    expected = whole_form(network, gallery, torch.cat([x, query[None]]), together).detach()
    near, far = (float(gallery.refine(query, 1, s).query @ expected[-1]) for s in (200, 2))
    assert near > 0.98 and near >= far


def test_reciprocal_needs_both() -> None:
    assert reciprocal(torch.tensor([[0, 2], [1, 0], [2, 0]])).tolist() == [[0, 2], [1, -1], [2, 0]]
