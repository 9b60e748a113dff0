"""CM-LSP-GE: the losses and who is in them, enhancement and embedding, training by the path, settings."""

from dataclasses import asdict
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small_batch import TINY, batch
from small_run import WORDS, make_run, write_people
from torch import Tensor

from vireid.layers.cmlspge import GlobalAndStripes
from vireid.layers.embedder import load_embedder, save_embedder
from vireid.losses.center_triplet import center_triplet
from vireid.losses.part_triplet import part_triplet, path_triplet
from vireid.method import Method, Progress, Recipe
from vireid.methods.cmlspge import CMLSPGE
from vireid.training.optim import Optimizers
from vireid.training.settings import resolve
from vireid.types import INFRARED, VISIBLE
from vireid.workflows.run import Run

PARTS = {"parts": 2, "part_dim": 6}
NAMES = ["identity", "center", "identity_enhanced", "center_enhanced", "stripes_visible", "stripes_infrared", "part"]


def tiny(**settings: object) -> CMLSPGE:
    torch.manual_seed(0)
    return CMLSPGE(4, (1, 2), **{**TINY, **PARTS, **settings})  # pyright: ignore[reportArgumentType]


def recipe() -> Recipe:
    assert isinstance(CMLSPGE.recipe, Recipe)
    return CMLSPGE.recipe


def vectors(method: CMLSPGE) -> tuple[Tensor, Tensor, Tensor]:
    """g, eg and the stripes of the batch, computed again with the same batch statistics."""
    given = batch()
    maps, pooled, embedding = method.embedder.encode(given.images, given.modality)
    assert method.embedder.stripes is not None
    return pooled, embedding, method.embedder.stripes(maps)


# --- losses ---------------------------------------------------------------------------------------------------------


def test_losses_are_the_printed_ones() -> None:
    method, given = tiny(margin_global=2.0, margin_local=3.0), batch()
    losses = method.losses(given, Progress())
    assert list(losses) == NAMES
    g, eg, stripes = vectors(method)
    torch.testing.assert_close(losses["identity"], F.cross_entropy(g @ method.pooled_classifier.weight.T, given.label))
    torch.testing.assert_close(
        losses["identity_enhanced"], F.cross_entropy(eg @ method.classifier.weight.T, given.label)
    )
    for name, x in (("center", g), ("center_enhanced", eg)):
        torch.testing.assert_close(losses[name], center_triplet(x, given.label, given.modality, 2.0))
    heads = [head.weight for head in method.stripe_classifiers]
    for modality, name in ((VISIBLE, "stripes_visible"), (INFRARED, "stripes_infrared")):
        own = given.modality == modality
        logits = [x[own] @ w.T for x, w in zip(stripes.unbind(1), heads, strict=True)]  # pyright: ignore
        expected = sum(F.cross_entropy(z, given.label[own]) for z in logits)  # over stripes a sum
        torch.testing.assert_close(losses[name], expected)
    torch.testing.assert_close(losses["part"], part_triplet(stripes, given.label, given.modality, margin=3.0))
    assert all(float(losses[name].detach()) > 0 for name in NAMES)


def test_enhancement_is_a_batch_norm_with_losses_of_its_own() -> None:
    method = tiny(margin_global=20.0)  # wide enough to be open
    g, eg, _ = vectors(method)
    expected = (g - g.mean(0)) / (g.var(0, unbiased=False) + 1e-5).sqrt() * method.embedder.neck.weight
    torch.testing.assert_close(eg, expected, rtol=1e-4, atol=1e-4)
    assert method.classifier.weight.shape == method.pooled_classifier.weight.shape
    given = batch()
    losses = method.losses(given, Progress())
    norm = method.embedder.neck.weight
    for name in ("identity_enhanced", "center_enhanced"):
        (found,) = torch.autograd.grad(losses[name], norm, retain_graph=True)
        assert found.any(), name
    for name in ("identity", "center", "part"):
        assert torch.autograd.grad(losses[name], norm, retain_graph=True, allow_unused=True) == (None,)


def test_gate_of_the_batch_norms_weights() -> None:
    method = tiny(ge="bn_weight").double()
    norm = method.embedder.neck.bn  # pyright: ignore[reportAttributeAccessIssue]
    torch.nn.init.normal_(norm.weight)
    g = torch.rand(16, 128, dtype=torch.float64)
    normal = (g - g.mean(0)) / (g.var(0, unbiased=False) + 1e-5).sqrt() * norm.weight
    share = norm.weight.abs() / norm.weight.abs().sum()
    torch.testing.assert_close(method.embedder.neck(g), torch.sigmoid(share * normal) * g)
    method.float().losses(batch(), Progress())["identity_enhanced"].backward()
    assert norm.weight.grad is not None and norm.weight.grad.any()
    groups = method.params()
    assert any(p is norm.weight for p in groups["head"])


@pytest.mark.parametrize(("kind", "names"), [("stripe", ["part"]), ("lsp", ["path"]), ("both", ["part", "path"])])
@pytest.mark.parametrize("candidates", ["both", "cross"])
def test_training_by_the_path(kind: str, names: list[str], candidates: str) -> None:
    method, given = tiny(local_triplet=kind, candidates=candidates, margin_local=5.0, part=0.5), batch()
    losses = method.losses(given, Progress())
    assert list(losses) == NAMES[:-1] + names
    _, _, stripes = vectors(method)
    options = {"margin": 5.0, "candidates": candidates}
    for name, loss in (("part", part_triplet), ("path", path_triplet)):
        if name in names:
            expected = 0.5 * loss(stripes, given.label, given.modality, **options)
            torch.testing.assert_close(losses[name], expected)
            network = method.embedder.stripes
            assert network is not None
            for found in torch.autograd.grad(losses[name], [r[0].weight for r in network.reduce], retain_graph=True):  # pyright: ignore
                assert torch.isfinite(found).all() and found.any()


def test_training_by_the_path_lowers_its_loss() -> None:
    method, given = tiny(local_triplet="lsp", margin_local=1.0), batch()
    optim, at = Optimizers(method.params(), recipe()), Progress(epochs=1, iterations_per_epoch=15)
    optim.scale(0.1)
    totals = [float(method.step(given, optim, at)["path"].detach()) for _ in range(15)]
    assert sum(totals[-3:]) < 0.8 * sum(totals[:3])


def test_sums_may_start_at_the_second_stripe_as_printed() -> None:
    method, given = tiny(first_stripe=2), batch()
    losses = method.losses(given, Progress())
    _, _, stripes = vectors(method)
    torch.testing.assert_close(losses["part"], part_triplet(stripes[:, 1:], given.label, given.modality))
    assert len(method.stripe_classifiers) == 1
    own = given.modality == VISIBLE
    logits = stripes[own, 1] @ method.stripe_classifiers[0].weight.T  # pyright: ignore
    torch.testing.assert_close(losses["stripes_visible"], F.cross_entropy(logits, given.label[own]))
    layers = method.embedder.eval().layers(given.images, given.modality)
    assert layers["stripes"].shape == (16, 12)  # the path at test runs over all


def test_sums_over_the_anchors_as_printed() -> None:
    given = batch()
    mean, total = (tiny(reduction=r, margin_global=2.0).losses(given, Progress()) for r in ("mean", "sum"))
    for name in NAMES:
        times = {"center": 8, "center_enhanced": 8, "part": 16}.get(name, 1)  # centers, rows
        torch.testing.assert_close(total[name], times * mean[name])


def test_weights_scale_or_leave_out_their_losses() -> None:
    given = batch()
    full = tiny(margin_global=2.0).losses(given, Progress())
    half = tiny(margin_global=2.0, enhanced=0.5, local=0.25, center=2.0, part=3.0).losses(given, Progress())
    times = dict(zip(NAMES, (1, 2, 0.5, 1, 0.25, 0.25, 3), strict=True))
    for name in NAMES:
        torch.testing.assert_close(half[name], times[name] * full[name])
    assert list(tiny(enhanced=0).losses(given, Progress())) == ["identity", "center", *NAMES[4:]]
    assert list(tiny(center=0, local=0).losses(given, Progress())) == ["identity", "identity_enhanced", "part"]
    assert list(tiny(part=0).losses(given, Progress())) == NAMES[:-1]
    assert list(tiny(parts=0).losses(given, Progress())) == NAMES[:4]
    none = tiny(attention=False, center=0, parts=0)
    assert not [name for name, _ in none.named_parameters() if "nonlocal" in name or "stripe" in name]


def test_triplets_may_begin_later() -> None:
    later, given = tiny(triplets_from=2), batch()
    identities = [name for name in NAMES if "center" not in name and name != "part"]
    assert list(later.losses(given, Progress(epoch=1))) == identities
    assert list(later.losses(given, Progress(epoch=2))) == NAMES
    assert list(tiny().losses(given, Progress(epoch=0))) == NAMES
    for settings in ({"triplets_from": -1}, {"triplets_from": 1, "center": 0, "part": 0}):
        with pytest.raises(ValueError, match=r"triplets_from(`: expected whole number >= 0|=1 is the epoch)"):
            tiny(**settings)


def test_order_of_the_rows_does_not_matter() -> None:
    method, given = tiny(local_triplet="both").double(), batch()
    given.images = given.images.double()
    mixed = torch.randperm(16, generator=torch.Generator().manual_seed(0))
    found, expected = method.losses(given[mixed], Progress()), method.losses(given, Progress())
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)


def test_losses_stay_in_float32_under_bfloat16() -> None:
    method, given = tiny(local_triplet="both"), batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = method.losses(given, Progress())
    assert all(value.dtype == torch.float32 and torch.isfinite(value) for value in losses.values())


# --- embedding ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("share", [0.5, 0.1])
def test_embedding_is_the_global_vector_followed_by_the_stripes(share: float) -> None:
    network, given = tiny(stripe_share=share).embedder.eval(), batch()
    with torch.no_grad():
        layers = network.layers(given.images, given.modality)
        maps, pooled, embedding = network.encode(given.images, given.modality)
    assert list(layers) == ["joined", "neck", "pooled", "stripes"]
    assert layers["neck"].equal(embedding) and layers["pooled"].equal(pooled)
    assert network.stripes is not None
    torch.testing.assert_close(layers["stripes"], network.stripes(maps).flatten(1))
    joined = layers["joined"]
    assert joined.shape == (16, 128 + 12)
    torch.testing.assert_close(F.normalize(joined[:, :128]), F.normalize(embedding))
    # its cosine is that of the global vectors and the mean of those of the stripes, by their share
    stripes = layers["stripes"].unflatten(1, (2, 6))
    cosine = F.cosine_similarity(joined[:8, None], joined[None, 8:], dim=2)
    whole = F.cosine_similarity(embedding[:8, None], embedding[None, 8:], dim=2)
    local = F.cosine_similarity(stripes[:8, None], stripes[None, 8:], dim=3).mean(2)
    torch.testing.assert_close(cosine, (1 - share) * whole + share * local)


@pytest.mark.parametrize("settings", [{}, {"ge": "bn_weight", "stripe_pooling": "average"}, {"parts": 0}])
def test_file_gives_the_same_network_back(tmp_path: Path, settings: dict) -> None:
    network = tiny(**settings).embedder.eval()
    save_embedder(network, tmp_path / "embedder.safetensors")
    again = load_embedder(tmp_path / "embedder.safetensors")
    assert isinstance(again, GlobalAndStripes) and again.settings == network.settings
    images, modality = torch.randint(0, 256, (2, 3, 64, 32), dtype=torch.uint8), torch.tensor([0, 1])
    with torch.no_grad():
        assert again(images, modality).equal(network(images, modality))
    other = tiny(**settings)
    assert other.load_weights(again.state_dict()) == []
    assert all(value.equal(again.state_dict()[key]) for key, value in other.embedder.state_dict().items())


def test_global_network_is_that_of_agw() -> None:
    from vireid.layers.two_stream import TwoStream

    agw, given = TwoStream(**TINY).eval(), batch()  # pyright: ignore[reportArgumentType]
    method = tiny(parts=0)
    assert method.load_weights(agw.state_dict()) == []
    with torch.no_grad():
        found, expected = (n.eval().layers(given.images, given.modality) for n in (method.embedder, agw))
    assert found["neck"].equal(expected["neck"]) and found["pooled"].equal(expected["pooled"])


# --- settings -------------------------------------------------------------------------------------------------------


def test_numbers_of_the_page() -> None:
    with torch.device("meta"):
        method, whole = CMLSPGE(395), CMLSPGE(395, parts=0)
    count = lambda module: sum(p.numel() for p in module.parameters())  # noqa: E731
    numbers = [count(m) for m in (method, method.embedder, whole, whole.embedder)]
    assert numbers[3] == 23_550_351  # AGW's
    assert numbers[1] - numbers[3] == 6 * 256 * (2048 + 2)
    assert numbers[0] - numbers[1] == 395 * (2 * 2048 + 6 * 256)
    docs = Path(__file__).parents[2] / "docs" / "methods"
    for page in ("cmlspge.md", "cmlspge.zh.md"):
        text = (docs / page).read_text("utf-8")
        assert all(f"{number:,}" in text for number in numbers), numbers


def test_groups_hold_every_trainable_parameter_once() -> None:
    method = tiny()
    names = {id(p): name for name, p in method.named_parameters()}
    groups = {group: {names[id(p)] for p in params} for group, params in method.params().items()}
    trainable = {name for name, p in method.named_parameters() if p.requires_grad}
    assert groups["head"] | groups["backbone"] == trainable and not groups["head"] & groups["backbone"]
    assert {".".join(name.split(".")[:2]) for name in groups["backbone"]} == {
        "embedder.visible",
        "embedder.infrared",
        "embedder.trunk",
    }
    assert len(groups["head"]) == 1 + 2 + 2 * 3 + 2  # neck, classifiers of g and eg, stripes and theirs


def test_settings_by_name() -> None:
    words = ["local_triplet=lsp", "candidates=cross", "first_stripe=2", "ge=bn_weight", "part=0.5", "stripe_share=0.2"]
    (_,), settings = resolve(CMLSPGE, "sysu", words)
    method: Method = CMLSPGE(4, (1, 2), **{**asdict(settings), **TINY, **PARTS})
    assert isinstance(method, CMLSPGE) and method.triplets == ("lsp",) and method.settings.part == 0.5
    for wrong, message in (
        ({"ge": "in"}, "expected bn or bn_weight, got 'in'"),
        ({"local_triplet": "dtw"}, "stripe or lsp or both, got 'dtw'"),
        ({"candidates": "same"}, "both or cross, got 'same'"),
        ({"reduction": "none"}, "mean or sum, got 'none'"),
        ({"first_stripe": 3}, "from 1 to parts=2, got 3"),
        ({"first_stripe": 0}, "first_stripe`: expected whole number >= 1, got 0"),
        ({"local": 0, "part": 0}, "leave them out with parts=0"),
        ({"parts": -1}, "parts`: expected whole number >= 0, got -1"),
        ({"test_distance": "local"}, "cosine or global_local, got 'local'"),
        ({"test_distance": "global_local", "parts": 0}, "compares stripes, which parts=0 leaves out"),
        ({"stripe_share": 1.0}, "stripe_share`: expected number > 0 and < 1, got 1.0"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**wrong)


def test_figures_may_be_of_the_shortest_path(tmp_path: Path) -> None:
    """By the setting the whole gallery is ranked as `--rerank local-shortest-path` ranks its shortlist."""
    data = write_people(tmp_path / "data", {"train": 2, "test": 3})
    words = (*WORDS, "parts=3", "part_dim=6", "test_distance=global_local")
    run = Run(make_run(tmp_path / "run", data, "cmlspge", words=words))
    found = {
        name: run.evaluate(protocols=("manifest/visible-to-infrared",), pictures=0, progress=False, **options).rows[0]
        for name, options in {
            "setting": {},
            "asked": {"rerank": "local-shortest-path"},
            "neck": {"layer": "neck"},
        }.items()
    }
    stamps = {name: row.stamp["rerank"] for name, row in found.items()}
    assert stamps["setting"] == "local shortest path stripes=3x6 shortlist=all weight=1"
    assert "shortlist=100" in stamps["asked"] and stamps["neck"] == "none"
    assert found["setting"].metrics.mAP == found["asked"].metrics.mAP  # of a gallery that is shorter than a shortlist


def test_a_height_that_the_stripes_do_not_divide_is_refused() -> None:
    with pytest.raises(ValueError, match="4 rows cannot be cut into 3 equal stripes"):
        tiny(parts=3).losses(batch(), Progress())
