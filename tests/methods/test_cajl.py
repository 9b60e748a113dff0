"""CAJL and CAJ+: losses written out, the three views, settings."""

import pytest
import torch
import torch.nn.functional as F
from small_batch import TINY, batch

from vireid.errors import SettingsError
from vireid.losses.enhanced_squared_difference import enhanced_squared_difference
from vireid.losses.softened_kl import softened_kl
from vireid.method import Progress, Recipe
from vireid.methods.cajl import CAJL
from vireid.methods.cajl_plus import CAJLPlus
from vireid.types import INFRARED, VISIBLE

VIEWS = (VISIBLE, VISIBLE, INFRARED)


@pytest.mark.parametrize("settings", [{}, {"square": False, "alpha": 2.0}, {"gamma": 0.5, "beyond": "linear"}])
def test_losses_over_three_views(settings: dict) -> None:
    torch.manual_seed(0)
    method, given = CAJL(4, **TINY, **settings), batch(views=VIEWS)
    losses = method.losses(given, Progress())
    assert list(losses) == ["identity", "triplet"]
    encoded = method.embedder.encode(given.images, given.modality)
    assert encoded.pooled.shape == (24, 128)
    expected = enhanced_squared_difference(encoded.pooled, given.label, **settings)
    torch.testing.assert_close(losses["triplet"], expected.loss)
    torch.testing.assert_close(losses["identity"], F.cross_entropy(method.classifier(encoded.embedding), given.label))
    assert {k: float(v) for k, v in method.watch.items()} == {
        "saturated": float(expected.saturated),
        "lost_negatives": float(expected.lost),
        "correct": float(expected.correct),
    }


def test_kl_draws_visible_logits_to_infrared_ones() -> None:
    torch.manual_seed(0)
    method, given = CAJL(4, **TINY, kl=0.7), batch(views=VIEWS)
    losses = method.losses(given, Progress())
    logits = method.classifier(method.embedder.encode(given.images, given.modality).embedding)
    torch.testing.assert_close(losses["kl"], 0.7 * softened_kl(logits[:8], logits[16:]))


@pytest.mark.parametrize("students", ["original", "original-and-infrared", "augmented"])
def test_consistency_of_caj_plus(students: str) -> None:
    torch.manual_seed(0)
    method, given = CAJLPlus(4, **TINY, consistency=0.5, students=students), batch(views=VIEWS)  # pyright: ignore
    loss = method.losses(given, Progress())["consistency"]
    logits = method.classifier(method.embedder.encode(given.images, given.modality).embedding)
    v, augmented, infrared = logits.split(8)

    def cross(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
        return -(teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()

    expected = {
        "original": cross(v, augmented),
        "original-and-infrared": cross(v, augmented) + cross(infrared, augmented),
        "augmented": cross(augmented, v),
    }[students]
    torch.testing.assert_close(loss, 0.5 * expected)


def spread(method: type[CAJL], dataset: str) -> list[torch.Tensor]:
    """Per view and image, whether the three channels are equal after the transform, from gray-free noise."""
    recipe = method.recipe_for(dataset)
    assert isinstance(recipe, Recipe)
    images = torch.randint(0, 256, (400, 3, 24, 12), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = []
    for view in recipe.views:
        out = view.transform({"images": images}, torch.Generator().manual_seed(1))["images"]
        assert out.shape == images.shape and out.dtype == torch.float32
        found.append((out[:, 0] == out[:, 1]).flatten(1).all(1) & (out[:, 1] == out[:, 2]).flatten(1).all(1))
    return found


@pytest.mark.parametrize(
    ("method", "dataset", "infrared"), [(CAJL, "sysu", 7 / 8), (CAJLPlus, "sysu", 0.9), (CAJLPlus, "regdb", 7 / 8)]
)
def test_channel_operations_of_the_views(method: type[CAJL], dataset: str, infrared: float) -> None:
    original, augmented, from_infrared = (view.double().mean() for view in spread(method, dataset))
    assert float(original) == 0  # gray pixels differ between channels once they are normalized
    assert float(augmented) == 1
    assert float(from_infrared) == pytest.approx(infrared, abs=0.05)


def test_settings_that_mean_nothing_here_are_refused() -> None:
    with pytest.raises(SettingsError, match="`triplet` is unknown"):
        CAJL(4, triplet="hard", **TINY)
    with pytest.raises(SettingsError, match="`students`: expected original or"):
        CAJLPlus(4, students="all", **TINY)
