"""Sheets of samples: every pixel where it belongs, and what wrong rows get."""

import numpy as np
import pytest
import torch

from vireid.training.samples import GAP, PAPER, sheet


def test_pictures_stand_in_rows_behind_their_names() -> None:
    images = torch.rand(3, 3, 5, 4, generator=torch.Generator().manual_seed(0))
    tall = torch.tensor([-1.0, 0.5, 2.0]).view(1, 3, 1, 1).expand(1, 3, 7, 2)
    found = np.asarray(sheet({"first": images, "second": tall}))
    assert found.shape[0] == GAP + 5 + GAP + 7 + GAP
    left = found.shape[1] - 3 * (4 + GAP)
    for place in range(3):
        start = left + place * (4 + GAP)
        shown = found[GAP : GAP + 5, start : start + 4]
        np.testing.assert_array_equal(shown, (images[place] * 255).round().byte().permute(1, 2, 0))
        assert (found[GAP : GAP + 5, start + 4 : start + 4 + GAP] == PAPER).all()
    second = found[GAP + 5 + GAP :][:7]
    assert (second[:, left : left + 2] == (0, 128, 255)).all()  # clipped, not wrapped around
    for top in (0, GAP + 5):
        assert (found[top + 1 : top + 12, :left] != PAPER).any(), "a name is written"


def test_what_is_no_number_is_black() -> None:
    found = np.asarray(sheet({"broken": torch.full((1, 3, 2, 2), torch.nan)}))
    assert (found[GAP : GAP + 2, -2 - GAP : -GAP] == 0).all()


def test_wrong_rows_are_told() -> None:
    with pytest.raises(ValueError, match="no rows"):
        sheet({})
    for images in (torch.rand(2, 1, 4, 4), torch.rand(3, 4, 4), torch.rand(0, 3, 4, 4), torch.ones(1, 3, 2, 2).byte()):
        with pytest.raises(ValueError, match=r"'row' as .*expected float images \(N, 3, H, W\)"):
            sheet({"row": images})
