"""Transforms: the recorded CAJ operations, Pillow's pixels, alignment of what belongs together, own randomness."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from vireid.data import transforms as t
from vireid.images import resize
from vireid.types import IMAGENET_MEAN, IMAGENET_STD


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(images: int = 6, height: int = 24, width: int = 12, seed: int = 0) -> torch.Tensor:
    return torch.randint(0, 256, (images, 3, height, width), dtype=torch.uint8, generator=seeded(seed))


# --- CAJ's recorded operations ----------------------------------------------------------------------------------------


def recorded_erasings() -> list[str]:
    return [f"seed{n}" for n in range(12)] + [f"mcl_seed{n}" for n in range(100, 106)]


@pytest.mark.parametrize("case", recorded_erasings())
def test_erasing_follows_the_recorded_draws(case: str) -> None:
    golden = np.load(GOLDEN / "caj_random_erasing.npz")
    image = torch.from_numpy(golden["img"])[None]
    height, width = image.shape[-2:]
    gate, *tries = golden[f"{case}_draws"].tolist()
    chosen = gate < (0.8 if case.startswith("mcl") else 0.5)
    boxes = torch.zeros(1, 4, dtype=torch.int64)
    if chosen:
        *tried, row, column = tries
        area, aspect = torch.tensor(tried, dtype=torch.float64).view(-1, 2).T[:, None]
        # The record holds whole rows and columns; the same place as a uniform number is any inside its interval.
        size, found = t.erase_boxes(area, aspect, torch.zeros(1), torch.zeros(1), height, width)
        assert found.all()
        tall, wide = int(size[0, 1]), int(size[0, 3])
        places = torch.tensor([(row + 0.5) / (height - tall + 1), (column + 0.5) / (width - wide + 1)])
        boxes, _ = t.erase_boxes(area, aspect, places[:1], places[1:], height, width)
    expected = golden[f"{case}_box_top_bottom_left_right"]
    assert chosen == (expected[0] >= 0)
    if chosen:
        np.testing.assert_array_equal(boxes[0].numpy(), expected)
    if f"{case}_out" in golden:
        fill = tuple(golden["fill"].tolist())
        assert fill == t.Erase().fill
        np.testing.assert_array_equal(t.erase(image, boxes, fill)[0].numpy(), golden[f"{case}_out"])


CHANNEL_CASES = {
    "exchange_idx0": t.RED,
    "exchange_idx1": t.GREEN,
    "exchange_idx2": t.BLUE,
    "exchange_gray3_idx3": t.GRAY,
    "adapgray_idx0": t.RED,
    "adapgray_idx1": t.GREEN,
    "adapgray_idx2": t.BLUE,
    "adapgray_idx3_u0.2": t.GRAY,
    "adapgray_idx3_u0.8": t.UNCHANGED,
    "adap_idx0": t.RED,
    "adap_idx3": t.UNCHANGED,
}


def test_channel_operations_are_the_recorded_ones() -> None:
    golden = np.load(GOLDEN / "caj_channel_ops.npz")
    image = torch.from_numpy(golden["img"])
    result = t.apply_channels(image.expand(len(CHANNEL_CASES), -1, -1, -1), torch.tensor(list(CHANNEL_CASES.values())))
    for row, case in enumerate(CHANNEL_CASES):
        np.testing.assert_allclose(result[row].numpy(), golden[case], rtol=0, atol=1e-14, err_msg=case)
    assert golden["gray_weights"].tolist() == list(t.GRAY_WEIGHTS)


def share(transform: t.ChannelExchange | t.ChannelJitter, images: int = 8000) -> np.ndarray:
    pixels = torch.tensor([1.0, 2.0, 4.0]).view(1, 3, 1, 1).expand(images, 3, 1, 1)
    first = transform({"images": pixels}, seeded())["images"]
    gray = 0.2989 + 2 * 0.5870 + 4 * 0.1140
    unchanged = first[:, 2] != first[:, 0]
    kinds = [first[:, 0] == 1, first[:, 0] == 2, first[:, 0] == 4, (first[:, 0] - gray).abs() < 1e-5]
    kinds = [kind & ~unchanged for kind in kinds] + [unchanged]
    return np.array([float(kind.float().mean()) for kind in kinds])


def test_channel_operations_come_as_often_as_published() -> None:
    np.testing.assert_allclose(share(t.ChannelExchange()), [1 / 3, 1 / 3, 1 / 3, 0, 0], atol=0.02)
    np.testing.assert_allclose(share(t.ChannelExchange(gray=True)), [1 / 4, 1 / 4, 1 / 4, 1 / 4, 0], atol=0.02)
    np.testing.assert_allclose(share(t.ChannelJitter()), [1 / 4, 1 / 4, 1 / 4, 1 / 8, 1 / 8], atol=0.02)
    np.testing.assert_allclose(share(t.ChannelJitter(gray=0.6)), [1 / 4, 1 / 4, 1 / 4, 3 / 20, 1 / 10], atol=0.02)


@settings(max_examples=100)
@given(
    area=st.lists(st.floats(0.01, 1.5), min_size=1, max_size=5),
    aspect=st.floats(0.2, 5),
    row=st.floats(0, 1, exclude_max=True),
    column=st.floats(0, 1, exclude_max=True),
    height=st.integers(2, 60),
    width=st.integers(2, 60),
)
def test_boxes_are_the_first_that_fits(
    area: list[float], aspect: float, row: float, column: float, height: int, width: int
) -> None:
    ratios = torch.full((1, len(area)), aspect, dtype=torch.float64)
    places = torch.tensor([[row], [column]], dtype=torch.float64)
    boxes, found = t.erase_boxes(
        torch.tensor([area], dtype=torch.float64), ratios, places[0], places[1], height=height, width=width
    )
    top, bottom, left, right = boxes[0].tolist()
    for fraction in area:  # the released loop
        tall = round((fraction * height * width * aspect) ** 0.5)
        wide = round((fraction * height * width / aspect) ** 0.5)
        if tall < height and wide < width:
            assert found.item() and (bottom - top, right - left) == (tall, wide)
            assert min(top, left) >= 0 and bottom <= height and right <= width
            break
    else:
        assert not found.item() and boxes.sum() == 0


def test_erasing_has_the_distribution_of_a_loop_over_tries() -> None:
    height, width, images = 24, 12, 4000
    _, boxes = t.Erase(area=(0.1, 0.8)).boxes(images, height, width, seeded())
    random = np.random.RandomState(1)
    loop = []
    while len(loop) < images:
        area, aspect = random.uniform(0.1, 0.8) * height * width, random.uniform(0.3, 1 / 0.3)
        tall, wide = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if tall < height and wide < width:
            loop.append((tall, wide, random.randint(0, height - tall + 1), random.randint(0, width - wide + 1)))
    top, bottom, left, right = boxes.double().unbind(1)
    ours = torch.stack([bottom - top, right - left, top, left], dim=1).numpy()
    theirs = np.array(loop)
    np.testing.assert_allclose(ours.mean(axis=0), theirs.mean(axis=0), atol=0.3)
    np.testing.assert_allclose(ours.std(axis=0), theirs.std(axis=0), atol=0.3)


def test_erase_settings_reach_the_pixels() -> None:
    images = torch.zeros(300, 3, 24, 12)
    erased = t.Erase(p=0.5)({"images": images}, seeded())["images"]
    touched = (erased != 0).flatten(1).any(dim=1)
    assert 0.4 < touched.float().mean() < 0.6
    assert images.abs().sum() == 0  # the input is left alone
    assert torch.equal((erased[:, 0] != 0), (erased[:, 2] != 0))
    assert sorted(set(erased.flatten().tolist())) == pytest.approx([0, 0.4465, 0.4822, 0.4914])
    each = t.Erase(p=1.0, per_channel=True)({"images": images}, seeded())["images"]
    assert not torch.equal((each[:, 0] != 0), (each[:, 2] != 0))
    torchvision = t.Erase(p=1.0, area=(0.02, 0.33), aspect=(0.3, 3.3), fill=(0, 0, 0), tries=10, log_aspect=True)
    assert (torchvision({"images": images + 1}, seeded())["images"] == 0).flatten(1).any(dim=1).all()
    _, boxes = torchvision.boxes(4000, 200, 200, seeded())
    top, bottom, left, right = boxes.double().unbind(1)
    assert ((bottom - top) / (right - left)).log().mean().abs() < 0.05  # tall as often as wide
    assert torch.equal(t.Erase(p=0.0)({"images": images}, seeded())["images"], images)


# --- pixels -----------------------------------------------------------------------------------------------------------


def test_normalize_is_imagenets() -> None:
    images = noise()
    result = t.Normalize()({"images": images}, seeded())["images"]
    mean, std = (np.array(values).reshape(3, 1, 1) for values in (IMAGENET_MEAN, IMAGENET_STD))
    expected = (images.numpy() / 255 - mean) / std
    assert result.dtype == torch.float32 and result.is_contiguous()
    np.testing.assert_allclose(result.numpy(), expected, atol=2e-6)


def test_symmetric_is_from_minus_1_to_1() -> None:
    images = noise()
    result = t.Symmetric()({"images": images}, seeded())["images"]
    assert result.dtype == torch.float32 and result.is_contiguous()
    np.testing.assert_allclose(result.numpy(), images.numpy() / 127.5 - 1, atol=2e-7)
    ends = t.Symmetric()({"images": torch.tensor([0, 255], dtype=torch.uint8).expand(1, 3, 1, 2)}, seeded())["images"]
    assert ends[0, 0, 0].tolist() == [-1, 1]
    with pytest.raises(ValueError, match="Symmetric works on uint8 pixels"):
        t.Symmetric()({"images": result}, seeded())


def test_gray_is_pillows() -> None:
    images = noise(40)
    result = t.RandomGray(p=0.5)({"images": images}, seeded(3))["images"]
    changed = 0
    for before, after in zip(images, result, strict=True):
        gray = np.asarray(Image.fromarray(before.permute(1, 2, 0).numpy()).convert("L"))
        is_gray = np.array_equal(after.numpy(), np.stack([gray] * 3))
        assert is_gray or torch.equal(before, after)
        changed += is_gray
    assert 8 < changed < 32


def test_crop_is_padding_and_cutting_image_by_image() -> None:
    images = noise(8, 11, 7)
    top, left = torch.tensor([0, 6, 3, 3, 0, 6, 2, 5]), torch.tensor([0, 6, 3, 0, 6, 1, 4, 3])
    result = t.crop({"images": images}, top, left, pad=3, fill=127)["images"]
    padded = np.pad(images.numpy(), ((0, 0), (0, 0), (3, 3), (3, 3)), constant_values=127)
    for row in range(len(images)):
        expected = padded[row, :, top[row] : top[row] + 11, left[row] : left[row] + 7]
        np.testing.assert_array_equal(result[row].numpy(), expected)


# --- alignment --------------------------------------------------------------------------------------------------------


def aligned_sample(images: int = 32, height: int = 20, width: int = 16) -> dict[str, torch.Tensor]:
    """17 points whose place is also one white pixel of a mask, a peak of a heat map and a bright pixel of the image."""
    generator = seeded(5)
    x = torch.randint(0, width, (images, 17), generator=generator)
    y = torch.randint(0, height, (images, 17), generator=generator)
    heatmaps = torch.zeros(images, 17, height, width)
    rows, points = torch.arange(images)[:, None], torch.arange(17)[None]
    heatmaps[rows, points, y, x] = 1
    masks = torch.zeros(images, height, width, dtype=torch.uint8)
    masks[rows[:, 0], y[:, 0], x[:, 0]] = 1
    pixels = masks[:, None].expand(-1, 3, -1, -1) * 255
    keypoints = torch.stack([x, y, torch.ones_like(x)], dim=-1).float()
    return {"images": pixels, "masks": masks, "keypoints": keypoints, "heatmaps": heatmaps}


def test_everything_of_a_sample_moves_alike() -> None:
    sample = aligned_sample()
    moved = t.Chain(t.PadCrop(pad=4), t.Flip())(sample, seeded(1))
    assert torch.equal(moved["images"][:, 0] == 255, moved["masks"] == 1)
    for image in range(32):
        for point in range(17):
            x, y, confidence = moved["keypoints"][image, point].tolist()
            if confidence:
                assert moved["heatmaps"][image, point, int(y), int(x)] == 1
            else:
                assert moved["heatmaps"][image, point].sum() == 0
        if moved["keypoints"][image, 0, 2]:
            x, y = moved["keypoints"][image, 0, :2].int().tolist()
            assert moved["masks"][image, y, x] == 1
        else:
            assert moved["masks"][image].sum() == 0
    assert 0 < (moved["keypoints"][..., 2] == 0).float().mean() < 0.6  # the pad is large: some points were cut off


def test_flip_exchanges_left_and_right() -> None:
    sample = aligned_sample()
    once = t.flip(sample, torch.ones(32, dtype=torch.bool))
    assert torch.equal(once["images"], sample["images"].flip(-1))
    left, right = 5, 6  # shoulders
    assert torch.equal(once["keypoints"][:, left, 0], 15 - sample["keypoints"][:, right, 0])
    assert torch.equal(once["keypoints"][:, left, 1], sample["keypoints"][:, right, 1])
    twice = t.flip(once, torch.ones(32, dtype=torch.bool))
    assert all(torch.equal(twice[name], sample[name]) for name in sample)
    none = t.flip(sample, torch.zeros(32, dtype=torch.bool))
    assert all(torch.equal(none[name], sample[name]) for name in sample)


def test_points_stay_at_their_place_of_a_resized_picture() -> None:
    pixels = np.zeros((60, 40, 3), np.uint8)
    pixels[12:22, 20:26] = 255  # around row 16.5 and column 22.5
    bright = resize(Image.fromarray(pixels), (45, 32), "bilinear")[:, :, 0].astype(float)
    row, column = (bright.sum(axis) @ np.arange(len(bright.sum(axis))) / bright.sum() for axis in (1, 0))
    found = t.scale_keypoints(torch.tensor([[[22.5, 16.5, 0.7]]]), (60, 40), (45, 32))
    assert found[0, 0].tolist() == pytest.approx([column, row, 0.7], abs=0.02)
    each = t.scale_keypoints(torch.tensor([[[22.5, 16.5, 0.7]]]), torch.tensor([[60, 40]]), (45, 32))
    assert torch.equal(each, found)


# --- randomness -------------------------------------------------------------------------------------------------------

CAJL_VIEW = t.Chain(t.PadCrop(), t.Flip(), t.RandomGray(0.3), t.Normalize(), t.Erase(0.5), t.ChannelJitter())


def test_every_image_has_its_own_randomness_and_a_seed_repeats_it() -> None:
    images = noise(1).expand(48, -1, -1, -1)
    first = CAJL_VIEW({"images": images}, seeded(1))["images"]
    assert len({image.numpy().tobytes() for image in first}) > 40
    assert torch.equal(first, CAJL_VIEW({"images": images}, seeded(1))["images"])
    assert not torch.equal(first, CAJL_VIEW({"images": images}, seeded(2))["images"])


def test_a_part_of_the_batch_gets_the_parts_randomness() -> None:
    images = noise(12)
    whole = CAJL_VIEW({"images": images}, seeded(9))["images"]
    for first, size in ((0, 6), (6, 6), (4, 3)):
        generator = t.RankGenerator().of_batch(9, whole=12, first=first)
        part = CAJL_VIEW({"images": images[first : first + size]}, generator)["images"]
        assert torch.equal(part, whole[first : first + size])


def test_inputs_are_left_alone() -> None:
    images = noise()
    before = images.clone()
    CAJL_VIEW({"images": images}, seeded())
    assert torch.equal(images, before)


def test_chain_takes_steps_in_every_usual_form() -> None:
    steps = (t.PadCrop(2), t.Flip(0.25))
    assert t.Chain(*steps) == t.Chain(steps) == t.Chain(steps=steps)
    assert hash(t.Chain(*steps)) == hash(t.Chain(steps))
    with pytest.raises(ValueError, match=r"steps\.1\n.* instance of Transform"):
        t.Chain(t.Flip(), "flip")  # pyright: ignore[reportArgumentType]


def test_wrong_order_and_wrong_settings_are_told() -> None:
    with pytest.raises(ValueError, match="before Normalize"):
        t.Chain(t.Normalize(), t.PadCrop())({"images": noise()}, seeded())
    with pytest.raises(ValueError, match="after Normalize"):
        t.Erase(1.0)({"images": noise()}, seeded())
    with pytest.raises(ValueError, match=r"Flip\np\n.* less than or equal to 1"):
        t.Flip(p=1.5)
    with pytest.raises(ValueError, match="Erase needs area and aspect as"):
        t.Erase(area=(0.4, 0.1))
    with pytest.raises(ValueError, match="17 COCO points"):
        t.Flip(1.0)({"images": noise(), "keypoints": torch.zeros(6, 4, 3)}, seeded())
