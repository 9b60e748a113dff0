"""AGW: losses written out, groups of parameters, published recipe, weights, settings."""

import json

import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from small_batch import TINY, batch

from vireid.errors import SettingsError
from vireid.layers.embedder import load_embedder, save_embedder
from vireid.losses.hard_triplet import batch_hard_triplet
from vireid.losses.weighted_triplet import weighted_regularized_triplet
from vireid.method import Progress
from vireid.methods.agw import AGW
from vireid.methods.msclnet import MSCLNet


def test_losses_are_cross_entropy_and_wrt() -> None:
    torch.manual_seed(0)
    method, given = AGW(4, **TINY), batch()
    losses = method.losses(given, Progress())
    assert list(losses) == ["identity", "triplet"]
    encoded = method.embedder.encode(given.images, given.modality)
    logits = encoded.embedding @ method.classifier.weight.T
    expected = -(logits.log_softmax(1)[torch.arange(16), given.label]).mean()
    torch.testing.assert_close(losses["identity"], expected)
    wrt = weighted_regularized_triplet(encoded.pooled, given.label)
    torch.testing.assert_close(losses["triplet"], wrt.loss)
    assert float(method.watch["lost_negatives"]) == float(wrt.lost)
    assert float(method.watch["correct"]) == float(wrt.correct)


def test_base_variant() -> None:
    torch.manual_seed(0)
    method, given = AGW(4, attention=False, pooling="average", triplet="hard", **TINY), batch()
    losses = method.losses(given, Progress())
    maps, pooled, _ = method.embedder.encode(given.images, given.modality)
    torch.testing.assert_close(pooled, maps.mean((2, 3)))
    torch.testing.assert_close(losses["triplet"], batch_hard_triplet(pooled, given.label))
    assert not [name for name, _ in method.named_parameters() if "nonlocal" in name]


def test_unit_triplet_compares_directions() -> None:
    torch.manual_seed(0)
    for triplet, loss in (
        ("weighted", lambda x, label: weighted_regularized_triplet(x, label).loss),
        ("hard", batch_hard_triplet),
    ):
        method, given = AGW(4, triplet=triplet, unit_triplet=True, **TINY), batch()
        pooled = method.embedder.encode(given.images, given.modality).pooled
        found = method.losses(given, Progress())["triplet"]
        torch.testing.assert_close(found, loss(pooled / pooled.norm(dim=1, keepdim=True), given.label))
        torch.testing.assert_close(method.triplet_loss(100 * pooled, given.label), found)  # length does not count


def test_stripes_are_averaged_and_joined(tmp_path) -> None:
    torch.manual_seed(0)
    method, given = AGW(4, stripes=2, pooling="average", **TINY), batch()
    encoded = method.embedder.encode(given.images, given.modality)
    upper, lower = encoded.maps.chunk(2, dim=2)
    stripes = torch.stack([upper.mean((2, 3)), lower.mean((2, 3))], dim=2)
    torch.testing.assert_close(encoded.pooled, stripes.flatten(1))
    assert method.classifier.weight.shape == (4, 256)
    method.losses(given, Progress())["identity"].backward()
    save_embedder(method.eval().embedder, tmp_path / "embedder.safetensors")
    loaded = load_embedder(tmp_path / "embedder.safetensors")
    again = loaded.layers(given.images, given.modality)["neck"]
    torch.testing.assert_close(again, method.embedder.layers(given.images, given.modality)["neck"])
    with pytest.raises(SettingsError, match="stripes=2 are averaged: set pooling=average, not gem"):
        AGW(4, stripes=2, **TINY)
    with pytest.raises(SettingsError, match="`stripes`"):
        MSCLNet(4, (1, 2), stripes=2, pooling="average", **TINY)


def test_groups_hold_every_trainable_parameter_once() -> None:
    method = AGW(4, pooling="gem-learned", **TINY)
    groups = method.params()
    assert [p.shape for p in groups["head"]] == [(128,), (4, 128)]
    trainable = {id(p) for p in method.parameters() if p.requires_grad}
    listed = [id(p) for group in groups.values() for p in group]
    assert sorted(listed) == sorted(trainable) and len(set(listed)) == len(listed)
    assert id(method.embedder.neck.bias) not in trainable
    names = {id(p): name for name, p in method.named_parameters()}
    assert any("nonlocal3" in names[id(p)] for p in groups["backbone"])
    assert {"embedder.pool.p"} <= {names[id(p)] for p in groups["backbone"]}


def test_official_checkpoint_fills_network_and_classifier() -> None:
    full = json.loads((GOLDEN / "agw_state_keys.json").read_text())
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, shape in full.items():
        sizes = [n if n in (1, 3, 7) else 6 if n == 395 else n // 16 for n in shape]
        state[name] = torch.rand(sizes, generator=generator) + 0.1 if sizes else torch.tensor(1)
    method = AGW(6, width=4)
    unused = method.load_weights(state)
    assert method.classifier.weight.equal(state["classifier.weight"])
    assert method.embedder.neck.weight.equal(state["bottleneck.weight"])
    assert method.embedder.infrared.conv1.weight.equal(state["thermal_module.thermal.conv1.weight"])
    assert method.embedder.trunk.nonlocal3[2].bn.running_var.equal(state["NL_3.2.W.1.running_var"])  # pyright: ignore
    assert not [k for k in unused if k.startswith(("NL", "bottleneck", "classifier", "base_resnet.base.layer"))]
    other = AGW(5, width=4)
    before = other.classifier.weight.detach().clone()
    assert "classifier.weight" in other.load_weights(state)  # other people: reported, not taken
    assert other.classifier.weight.equal(before)


def test_unknown_words_are_refused() -> None:
    with pytest.raises(ValueError, match="expected weighted or hard, got 'soft'"):
        AGW(4, triplet="soft", **TINY)
    with pytest.raises(ValueError, match="`margin` is unknown"):
        AGW(4, margin=0.3, **TINY)


def test_float64_step_lowers_the_loss() -> None:
    torch.manual_seed(0)
    method, given = AGW(4, **TINY).double(), batch()
    given.images = given.images.double()
    first = torch.stack(list(method.losses(given, Progress()).values())).sum()
    assert first.dtype == torch.float64
    first.backward()
    with torch.no_grad():
        for group in method.params().values():
            for p in group:
                assert p.grad is not None
                p -= 1e-3 * p.grad
    later = sum(float(v.detach()) for v in method.losses(given, Progress()).values())
    assert later < float(first.detach())


def test_bfloat16_autocast_keeps_losses_in_float32() -> None:
    torch.manual_seed(0)
    method, given = AGW(4, **TINY), batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(given, Progress())
    assert losses["triplet"].dtype == losses["identity"].dtype == torch.float32
    exact = F.cross_entropy(
        method.classifier(method.embedder.encode(given.images, given.modality).embedding), given.label
    )
    assert float(losses["identity"].detach()) == pytest.approx(float(exact.detach()), rel=0.02)
