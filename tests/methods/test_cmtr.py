"""CMTR: what enters the transformer, wrong modalities, what is removed, the losses of a batch."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden_files import GOLDEN
from small_batch import batch
from small_cmtr import tiny
from torch import Tensor, nn

from vireid.data.transforms import Normalize
from vireid.layers.cmtr import ModalityRemoval, ModalityTransformer
from vireid.layers.embedder import load_embedder, save_embedder
from vireid.losses.modality_aware import Center, Reduction, modality_aware_center
from vireid.losses.weighted_triplet import weighted_regularized_triplet
from vireid.method import Progress
from vireid.methods.cmtr import CMTR
from vireid.types import INFRARED, VISIBLE

NAMES = ["identity", "triplet", "modality_center", "modality_identity"]


# --- the modality embedding -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("on_cls", "name"), [(True, "seq_mod_on_all"), (False, "seq_mod_on_patches_only")])
@pytest.mark.parametrize("scale", [1.0, 3.0])
def test_recorded_input_of_the_transformer(on_cls: bool, name: str, scale: float) -> None:
    golden = {key: torch.as_tensor(value) for key, value in np.load(GOLDEN / "c_cmtr_embed.npz").items()}
    network = ModalityTransformer(
        image_size=(20, 14), patch=8, stride=6, dim=5, depth=1, heads=1, modality_on_cls=on_cls, modality_scale=scale
    ).double()
    trunk = network.trunk
    trunk.patch_embed.proj.load_state_dict({"weight": golden["proj_weight"], "bias": golden["proj_bias"]})
    trunk.pos_embed.data, trunk.cls_token.data = golden["pos"][None], golden["cls"][None, None]
    network.modality_embed.data = golden["mod_embed"] / scale
    found = network.tokens(golden["image"], golden["modality"])
    torch.testing.assert_close(found, golden[name], rtol=0, atol=1e-9)


def test_each_image_gets_its_own_modality() -> None:
    network = tiny().embedder.eval()
    given = batch()
    with torch.no_grad():
        own = network.encode(given.images, given.modality).embedding
        other = network.encode(given.images, 1 - given.modality).embedding
        assert not (own == other).all(1).any()  # the wrong one changes every vector
        network.modality_embed.copy_(network.modality_embed.flip(0))
        assert network.encode(given.images, 1 - given.modality).embedding.equal(
            own
        )  # names of modalities do not matter
        network.modality_embed[1] = network.modality_embed[0]
        torch.testing.assert_close(
            network.encode(given.images, given.modality).embedding,
            network.encode(given.images, 1 - given.modality).embedding,
        )


def test_pixels_half_sees_mean_and_deviation_of_a_half() -> None:
    pixels = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    modality = torch.tensor([0, 1])
    half, plain = tiny(pixels="half").embedder, tiny().embedder
    torch.testing.assert_close(half.rescaled(half.normalize(pixels)), pixels / 127.5 - 1, rtol=0, atol=1e-5)
    normalized = Normalize()({"images": pixels}, torch.Generator())["images"]
    torch.testing.assert_close(
        half.encode(normalized, modality).pooled, half.layers(half.normalize(pixels), modality)["pooled"]
    )
    assert plain.rescaled(normalized) is normalized
    expected = plain.encode(pixels / 127.5 - 1, modality).pooled
    torch.testing.assert_close(half.encode(normalized, modality).pooled, expected, rtol=1e-4, atol=1e-4)


# --- wrong modalities -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("training", [True, False])
def test_wrong_modalities_are_refused(training: bool) -> None:
    network = tiny().embedder.train(training)
    images = torch.zeros(3, 3, 64, 32, dtype=torch.uint8)
    for wrong in ([0, 1, 2], [-1, 0, 1], [0, 1, 10]):
        with pytest.raises(ValueError, match=r"modality must be 0 \(visible\) or 1 \(infrared\), got \["):
            network(images, torch.tensor(wrong))
    for wrong in (torch.tensor([0]), torch.tensor([0, 1]), torch.tensor([[0], [1], [0]])):
        with pytest.raises(ValueError, match=r"every image needs its modality: expected shape \(3,\)"):
            network(images, wrong)
        with pytest.raises(ValueError, match="every image needs its modality"):
            network.tokens(network.normalize(images), wrong)


@pytest.mark.parametrize("on_cls", [True, False])
def test_exported_graph_gives_no_vector_for_a_wrong_modality(tmp_path: Path, on_cls: bool) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    onnx = pytest.importorskip("onnx")
    from vireid.deploy.onnx import export_onnx

    network = tiny(modality_on_cls=on_cls, pixels="half", depth=1).embedder.eval()
    path = export_onnx(network, (64, 32), tmp_path / "cmtr.onnx")
    options = runtime.SessionOptions()
    options.log_severity_level = 4  # it prints the errors that are expected here
    session = runtime.InferenceSession(path, options)
    images = np.random.RandomState(0).randint(0, 256, (3, 3, 64, 32)).astype(np.uint8)
    (found,) = session.run(None, {"images": images, "modality": np.array([1, 0, 1])})
    with torch.no_grad():
        expected = network(torch.from_numpy(images), torch.tensor([1, 0, 1]))
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-4)
    for wrong in ([0, -1, 1], [0, -2, 1], [2, 1, 1], [0, 1, 99]):
        with pytest.raises(Exception, match=r"invalid index|out of data bounds"):
            session.run(None, {"images": images, "modality": np.array(wrong)})
    for wrong in ([1], [1, 0], [1, 0, 1, 0]):
        with pytest.raises(Exception, match=r"(?i)shape|dimension"):
            session.run(None, {"images": images, "modality": np.array(wrong)})

    # a runtime that does not check its indices: here it reads the last row where it should fail
    model = onnx.load(path)
    (gather,) = [node for node in model.graph.node if node.op_type == "Gather" and "modality_embed" in node.input[0]]
    place = list(model.graph.node).index(gather)
    model.graph.node.insert(place, onnx.helper.make_node("Clip", [gather.input[1], "lowest", "highest"], ["clipped"]))
    gather.input[1] = "clipped"
    for name, value in (("lowest", 0), ("highest", 1)):
        model.graph.initializer.append(onnx.helper.make_tensor(name, onnx.TensorProto.INT64, [], [value]))
    unchecked = runtime.InferenceSession(model.SerializeToString(), options)
    (found,) = unchecked.run(None, {"images": images, "modality": np.array([1, -1, 2])})
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-3, atol=1e-4)
    assert np.isnan(found[1:]).all()


# --- removal and losses ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("center", ["identity", "modality"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_recorded_enhancement_losses(center: Center, reduction: Reduction) -> None:
    """The whole way: removal by phi, center, shared classifier, lambda."""
    golden = {name: torch.as_tensor(value) for name, value in np.load(GOLDEN / "c_cmtr_mae.npz").items()}
    method = CMTR(
        9,
        image_size=(16, 16),
        dim=10,
        depth=1,
        heads=1,
        mac_center=center,
        reduction=reduction,
        mae=0.25,
    ).double()
    assert method.removal is not None
    method.classifier.weight.data = golden["W_id"]
    for phi, value in zip(method.removal.phi, (golden["phi_vis"], golden["phi_ir"]), strict=True):
        assert isinstance(phi, nn.Linear)
        phi.weight.data.zero_()
        phi.bias.data = value
    f = torch.cat([golden["f_vis"].flatten(0, 1), golden["f_ir"].flatten(0, 1)])
    label, modality = golden["ids"].repeat_interleave(3).repeat(2), torch.arange(2).repeat_interleave(12)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(0))
    losses = method.modality_aware_losses(f[order], label[order], modality[order])
    close = {"rtol": 0, "atol": 1e-9}
    torch.testing.assert_close(losses["modality_center"], golden[f"mac_{center}_{reduction}"] / 4, **close)
    torch.testing.assert_close(losses["modality_identity"], golden[f"maid_{reduction}"] / 4, **close)


@pytest.mark.parametrize(("phi", "maps"), [("linear", 1), ("mlp", 2)])
def test_removal_starts_small_and_maps_each_vector_by_its_own(phi: str, maps: int) -> None:
    torch.manual_seed(0)
    removal = ModalityRemoval(16, phi)  # pyright: ignore[reportArgumentType]
    assert sum(isinstance(module, nn.Linear) for module in removal.modules()) == 2 * maps
    f, modality = torch.randn(6, 16), torch.tensor([0, 1, 1, 0, 1, 0])
    e = torch.randn(2, 16) * 0.02
    with torch.no_grad():
        assert float((removal(f, modality, e) - f).abs().max()) < 0.02
    for p in removal.parameters():
        p.data.normal_()
    for i, m in enumerate(modality.tolist()):
        x = e[m]
        for module in removal.phi[m].modules():
            if isinstance(module, nn.Linear):
                x = module.weight @ x + module.bias
            elif isinstance(module, nn.GELU):
                x = x / 2 * (1 + torch.erf(x / 2**0.5))
        torch.testing.assert_close(removal(f, modality, e)[i], f[i] - x)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {
            "phi": "mlp",
            "mac_center": "modality",
            "mac_distance": "squared",
            "share_classifier": False,
            "mae": 0.1,
            "softmax": "official",
        },
        {"reduction": "sum", "mae": 2.0},
    ],
)
def test_losses_of_a_batch(settings: dict) -> None:
    method, given = tiny(**settings), batch()
    losses = method.losses(given, Progress())
    assert list(losses) == NAMES
    pooled, f = method.embedder.encode(given.images, given.modality)
    tokens = method.embedder.trunk(given.images, method.embedder.modality_embed[given.modality])
    assert pooled.equal(tokens[:, 0])  # the class token behind the last norm
    torch.testing.assert_close(losses["identity"], F.cross_entropy(f @ method.classifier.weight.T, given.label))
    official = settings.get("softmax") == "official"
    triplet = weighted_regularized_triplet(pooled, given.label, "official" if official else "exact", official)
    torch.testing.assert_close(losses["triplet"], triplet.loss)
    assert float(method.watch["lost_negatives"]) == float(triplet.lost)
    assert method.removal is not None
    removed = torch.stack([phi(e) for phi, e in zip(method.removal.phi, method.embedder.modality_embed, strict=True)])
    g = f - removed[given.modality]
    classifier = method.classifier if settings.get("share_classifier", True) else method.cleaned_classifier
    assert isinstance(classifier, nn.Linear)
    weight, reduction = settings.get("mae", 0.5), settings.get("reduction", "mean")
    ce = F.cross_entropy(g @ classifier.weight.T, given.label, reduction=reduction)
    torch.testing.assert_close(losses["modality_identity"], weight * ce)
    options = {
        "center": settings.get("mac_center", "identity"),
        "distance": settings.get("mac_distance", "euclidean"),
        "reduction": reduction,
    }
    center = modality_aware_center(g, given.label, given.modality, **options)
    torch.testing.assert_close(losses["modality_center"], weight * center)


def test_anchor_is_no_positive_of_its_own_by_default() -> None:
    """The printed equation: with two images of a person, the weighted positive is the other one's distance."""
    method, given = tiny(), batch(images=1)
    losses = method.losses(given, Progress())
    pooled = method.embedder.encode(given.images, given.modality).pooled.detach().double()
    d = torch.cdist(pooled, pooled)
    expected = []
    for i in range(8):
        negative = [j for j in range(8) if given.label[j] != given.label[i]]
        weights = torch.exp(-d[i, negative])
        near = (weights * d[i, negative]).sum() / weights.sum()
        expected.append(F.softplus(d[i, (i + 4) % 8] - near))
    assert float(losses["triplet"].detach()) == pytest.approx(float(torch.stack(expected).mean()), rel=1e-5)


def gradient_of(method: CMTR, loss: Tensor) -> Tensor:
    (grad,) = torch.autograd.grad(loss, method.embedder.modality_embed, retain_graph=True)
    return grad


def test_modality_vectors_learn_through_the_input_and_through_phi() -> None:
    method, given = tiny(), batch()
    assert gradient_of(method, method.losses(given, Progress())["identity"]).any()  # the input alone
    f = method.embedder.encode(given.images, given.modality).embedding.detach()
    losses = method.modality_aware_losses(f, given.label, given.modality)
    assert gradient_of(method, losses["modality_center"]).any()  # phi alone
    assert gradient_of(method, losses["modality_identity"]).any()
    visible = method.modality_aware_losses(f[:8], given.label[:8], given.modality[:8])["modality_identity"]
    grad = gradient_of(method, visible)
    assert grad[VISIBLE].any() and not grad[INFRARED].any()


def test_without_enhancement_nothing_is_removed() -> None:
    method = tiny(mae=0)
    assert method.removal is None and list(method.losses(batch(), Progress())) == NAMES[:2]


def test_nothing_is_subtracted_at_test(tmp_path: Path) -> None:
    method = tiny()
    network = method.embedder.eval()
    pixels, modality = torch.full((2, 3, 64, 32), 100, dtype=torch.uint8), torch.tensor([0, 1])
    save_embedder(network, tmp_path / "embedder.safetensors")
    again = load_embedder(tmp_path / "embedder.safetensors")
    assert not [name for name in again.state_dict() if "phi" in name or "removal" in name]
    with torch.no_grad():
        layers = network.layers(network.normalize(pixels), modality)
        assert list(layers) == ["neck", "pooled"]
        pooled = layers["pooled"]
        bn = network.neck
        expected = (pooled - bn.running_mean) / (bn.running_var + bn.eps).sqrt() * bn.weight  # pyright: ignore
        torch.testing.assert_close(layers["neck"], expected)
        assert network(pixels, modality).equal(layers["neck"]) and again(pixels, modality).equal(layers["neck"])
    assert not network.neck.bias.requires_grad and not network.neck.bias.any()
