"""CMTR: steps and resume, groups of parameters, settings, the numbers of its page, weights."""

import copy
import dataclasses
from pathlib import Path

import pytest
import torch
from small_batch import batch
from small_cmtr import recipe, tiny

from vireid.method import Batch, Progress
from vireid.methods.cmtr import CMTR
from vireid.training.optim import AdamW, Constant, Optimizers
from vireid.training.settings import resolve


def test_stochastic_depth_resumes_bit_for_bit() -> None:
    """Torch's random state is all that has to be put back beside weights and optimizers, and it is needed."""

    def steps(first: int, last: int, method: CMTR, optim: Optimizers) -> None:
        for i in range(first, last):
            given = batch()
            given.images = given.images + i
            method.step(given, optim, Progress(iteration=i))

    def fresh() -> tuple[CMTR, Optimizers]:
        method = tiny(drop_path=0.5, dropout=0.1, attention_dropout=0.1).train()
        return method, Optimizers(method.params(), recipe())

    method, optim = fresh()
    torch.manual_seed(1)
    steps(0, 2, method, optim)
    saved = copy.deepcopy((method.state_dict(), optim.state_dict(), torch.get_rng_state()))
    steps(2, 4, method, optim)
    for state, same in ((saved[2], True), (torch.Generator().manual_seed(9).get_state(), False)):
        again, optim_again = fresh()
        again.load_state_dict(saved[0])
        optim_again.load_state_dict(copy.deepcopy(saved[1]))
        torch.set_rng_state(state)
        steps(2, 4, again, optim_again)
        assert all(v.equal(again.state_dict()[k]) for k, v in method.state_dict().items()) is same


def test_groups_hold_every_trainable_parameter_once() -> None:
    method = tiny(share_classifier=False)
    names = {id(p): name for name, p in method.named_parameters()}
    groups = {group: {names[id(p)] for p in params} for group, params in method.params().items()}
    trainable = {name for name, p in method.named_parameters() if p.requires_grad}
    assert groups["head"] | groups["backbone"] == trainable and not groups["head"] & groups["backbone"]
    assert all(n.startswith(("embedder.trunk.blocks.", "embedder.trunk.patch_embed.")) for n in groups["backbone"])
    own = {"cls_token", "pos_embed", "norm.weight", "norm.bias"}
    rest = {"embedder.modality_embed", "embedder.neck.weight", "classifier.weight", "cleaned_classifier.weight"}
    maps = {f"removal.phi.{m}.{name}" for m in (0, 1) for name in ("weight", "bias")}
    assert groups["head"] == {f"embedder.trunk.{name}" for name in own} | rest | maps


def test_defaults() -> None:
    defaults = CMTR(4, **{**CMTR.tiny})  # pyright: ignore[reportArgumentType]
    s = defaults.settings
    assert (s.mae, s.mac_center, s.reduction, s.softmax) == (0.5, "identity", "mean", "exact")
    assert defaults.embedder.settings.modality_on_cls and defaults.embedder.settings.modality_scale == 1


def test_image_size_is_the_recipe_s() -> None:
    (found,), settings = resolve(CMTR, "sysu", ["size=[96,48]"])
    assert settings.image_size == (256, 128)
    with pytest.raises(
        ValueError, match=r"made for images of 64x32, the recipe's size is 96x48: set image_size=\[96,48\]"
    ):
        tiny().batches(None, found, Progress())  # pyright: ignore[reportArgumentType]
    (found,), settings = resolve(CMTR, "sysu", ["size=[96,48]", "image_size=[96,48]", "dim=16", "heads=2", "depth=1"])
    assert CMTR(4, settings=settings).embedder.trunk.settings.image_size == found.size


@pytest.mark.parametrize(
    ("phi", "count", "deployed"), [("linear", 87_297_024, 85_812_480), ("mlp", 88_478_208, 85_812_480)]
)
def test_numbers_of_the_page(phi: str, count: int, deployed: int) -> None:
    with torch.device("meta"):
        method = CMTR(395, phi=phi)  # pyright: ignore[reportArgumentType]
    assert sum(p.numel() for p in method.parameters()) == count
    assert sum(p.numel() for p in method.embedder.parameters()) == deployed
    docs = Path(__file__).parents[2] / "docs" / "methods"
    for page in ("cmtr.md", "cmtr.zh.md"):
        text = (docs / page).read_text("utf-8")
        assert f"{count:,}" in text and f"{deployed:,}" in text


def test_losses_under_autocast() -> None:
    method, given = tiny(), batch()
    expected = method.losses(given, Progress())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = method.losses(given, Progress())
    for name, loss in found.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, expected[name], rtol=0.05, atol=0.02)


def test_training_lowers_the_losses_in_float64() -> None:
    method, given = tiny().double().train(), batch()
    given.images = given.images.double()
    spec = dataclasses.replace(recipe(), schedule=Constant(), optimizers={n: AdamW(1e-3) for n in ("backbone", "head")})
    optim = Optimizers(method.params(), spec)
    values = [sum(float(v.detach()) for v in method.step(given, optim, Progress()).values()) for _ in range(12)]
    assert values[-1] < 0.7 * values[0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"mac_center": "batch"}, "`mac_center`: expected identity or modality, got 'batch'"),
        ({"mac_distance": "cosine"}, "`mac_distance`: expected euclidean or squared or normalized"),
        ({"reduction": "max"}, "`reduction`: expected mean or sum"),
        ({"softmax": "soft"}, "`softmax`: expected official or exact"),
        ({"phi": "conv"}, "`phi`: expected linear or mlp"),
        ({"pixels": "clip"}, "`pixels`: expected imagenet or half"),
        ({"mae": -1.0}, "`mae`: expected number >= 0"),
        ({"mae": 0.0, "share_classifier": False}, "there is no second classifier"),
        ({"modality_scale": -1.0}, "`modality_scale`: expected number >= 0"),
        ({"heads": 3}, "multiple of heads"),
    ],
)
def test_wrong_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**settings)


def test_weights_of_another_kind_are_refused() -> None:
    with pytest.raises(ValueError, match="imagenet-vit"):
        tiny().load_weights({"conv1.weight": torch.zeros(1)})
    state = {name.removeprefix("embedder."): value for name, value in tiny().state_dict().items() if "embedder" in name}
    assert tiny().load_weights(state) == []
    assert isinstance(batch(), Batch)
