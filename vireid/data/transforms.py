"""Transforms: changes of whole batches on their device, with randomness of its own for every image.

A transform takes a dict of aligned tensors and a seeded CPU generator and returns a new dict:

    images     uint8 (N, 3, H, W), float32 after Normalize or Symmetric
    masks      (N, H, W), optional; 0 outside
    keypoints  (N, K, 3) x, y in pixels and confidence, optional; confidence 0 when cut off
    heatmaps   (N, K, H, W), optional; 0 outside

All of them are cropped and mirrored alike; a mirror also exchanges left and right of keypoints and heat maps. They have
one size, which the pixel cache gave them.
Any other key passes unchanged. Random numbers are drawn on the CPU, so that every device and every rank sees the same
ones, and reach the device as one small copy; nothing here returns to Python per image. What is random is drawn in
`__call__`, what is done with it is a function of its own (`crop`, `flip`, `erase_boxes`, `erase`, `apply_channels`).

A transform that needs more than images names it in the attribute `inputs`, and vireid.data.pipeline provides it; what
it also names in `optional` may be missing in the table and comes as NaN then.

Sources: the channel operations and the erasing are those of CAJ (Ye et al., "Channel Augmented Joint Learning for
Visible-Infrared Recognition", ICCV 2021; checked against mangye16/Cross-Modal-Re-ID-baseline, ICCV21_CAJ).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from pydantic_core import ArgsKwargs
from torch import Tensor

from vireid.declaration import Count, Index, Number, Positive, Share, settings
from vireid.errors import ArgumentError
from vireid.method import Transform
from vireid.types import IMAGENET_MEAN, IMAGENET_STD

Sample = dict[str, Tensor]

# Left-right partners of the 17 COCO keypoints: nose, eyes, ears, shoulders, elbows, wrists, hips, knees, ankles.
COCO_MIRROR = (0, 2, 1, 4, 3, 6, 5, 8, 7, 10, 9, 12, 11, 14, 13, 16, 15)

# OpenPose's 18: nose, neck, right arm, left arm, right leg, left leg, eyes, ears; each with the right one first.
OPENPOSE_MIRROR = (0, 1, 5, 6, 7, 2, 3, 4, 11, 12, 13, 8, 9, 10, 15, 14, 17, 16)
MIRRORS = {len(mirror): mirror for mirror in (COCO_MIRROR, OPENPOSE_MIRROR)}

RED, GREEN, BLUE, GRAY, UNCHANGED = range(5)
GRAY_WEIGHTS = (0.2989, 0.5870, 0.1140)  # CAJ's, of red, green and blue


class RankGenerator(torch.Generator):
    """A generator for the images from `first` on of a batch of `whole`: `draw` gives them that batch's numbers."""

    whole: int
    first: int

    def of_batch(self, seed: int, whole: int, first: int) -> RankGenerator:
        self.manual_seed(seed)
        self.whole, self.first = whole, first
        return self


def draw(images: int, generator: torch.Generator, *shape: int) -> Tensor:
    """Uniform numbers in [0, 1), float64 (images, *shape), on the CPU.

    Draw with this and not with torch.rand, so that a process which holds a part of the batch draws the part's numbers.
    """
    if isinstance(generator, RankGenerator):
        whole = torch.rand((generator.whole, *shape), generator=generator, dtype=torch.float64)
        return whole[generator.first : generator.first + images]
    return torch.rand((images, *shape), generator=generator, dtype=torch.float64)


def whole_numbers(uniform: Tensor, count: Tensor | int) -> Tensor:
    """Uniform numbers in [0, 1) to whole numbers 0..count-1, int64."""
    return (uniform * count).floor().long()


def check_pixels(sample: Sample, step: str) -> None:
    """Raise ArgumentError where images are no longer uint8; `step` is the transform that asks."""
    if sample["images"].dtype != torch.uint8:
        raise ArgumentError(f"{step} works on uint8 pixels, got {sample['images'].dtype}; put it before Normalize")


@settings
class Chain:
    """One transform after the other: `Chain(PadCrop(), Flip(), Normalize())`; tuples of transforms are joined in."""

    steps: tuple[Transform, ...]
    """The transforms in order."""

    if TYPE_CHECKING:

        def __init__(self, *parts: Transform | tuple[Transform, ...], steps: tuple[Transform, ...] = ()) -> None: ...

    @model_validator(mode="before")
    @classmethod
    def joined(cls, given: Any) -> Any:
        if not isinstance(given, ArgsKwargs):
            return given
        parts = (*given.args, *(given.kwargs or {}).get("steps", ()))
        return {
            **(given.kwargs or {}),
            "steps": tuple(step for part in parts for step in (part if isinstance(part, tuple | list) else (part,))),
        }

    @property
    def inputs(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(name for step in self.steps for name in inputs_of(step)))

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        for step in self.steps:
            sample = step(sample, generator)
        return sample


def inputs_of(transform: Transform) -> tuple[str, ...]:
    """What a transform declares to need beyond images; nothing where it declares nothing."""
    return tuple(getattr(transform, "inputs", ()))


# --- where pixels lie -------------------------------------------------------------------------------------------------


def crop(sample: Sample, top: Tensor, left: Tensor, pad: int, fill: int = 0) -> Sample:
    """Pad every side by `pad` pixels and cut (H, W) out again at row `top` and column `left`, both (N,) in 0..2*pad."""
    images = sample["images"]
    height, width = images.shape[-2:]
    changed = dict(sample)
    for name, value in (("images", fill), ("masks", 0), ("heatmaps", 0)):
        if name in sample:
            if sample[name].shape[-2:] != images.shape[-2:]:
                raise ArgumentError(
                    f"{name} of {tuple(sample[name].shape[-2:])} cannot be cropped like images of {(height, width)}; "
                    "crop first and draw them afterward"
                )
            changed[name] = _cut(sample[name], top, left, pad, value)
    if "keypoints" in sample:
        points = sample["keypoints"]
        shift = torch.stack([pad - left, pad - top], dim=1).to(points)
        places = points[..., :2] + shift[:, None]
        limit = torch.tensor([width - 1, height - 1]).to(points)
        inside = ((places >= 0) & (places <= limit)).all(dim=-1)
        changed["keypoints"] = torch.cat([places, (points[..., 2] * inside)[..., None]], dim=-1)
    return changed


def _cut(values: Tensor, top: Tensor, left: Tensor, pad: int, fill: int) -> Tensor:
    height, width = values.shape[-2:]
    padded = F.pad(values, (pad, pad, pad, pad), value=fill)
    windows = padded.unfold(-2, height, 1).unfold(-2, width, 1)  # (N, ..., 2*pad+1, 2*pad+1, H, W), a view
    images = torch.arange(len(values), device=values.device)
    top, left = top.to(values.device), left.to(values.device)
    return windows[images, :, top, left] if values.ndim == 4 else windows[images, top, left]


def flip(sample: Sample, flipped: Tensor) -> Sample:
    """Mirror the images for which `flipped` (N,), boolean, is true, left to right."""
    changed = dict(sample)
    width = sample["images"].shape[-1]
    for name in ("images", "masks", "heatmaps", "keypoints"):
        if name not in sample:
            continue
        values = sample[name]
        mirror = list(MIRRORS.get(values.shape[1], ())) if name in ("heatmaps", "keypoints") else []
        if name in ("heatmaps", "keypoints") and not mirror:
            raise ArgumentError(
                f"{name} of 17 COCO points or 18 of OpenPose can be mirrored, got {values.shape[1]}; leave Flip out"
            )
        if name == "keypoints":
            mirrored = values[:, mirror].clone()
            mirrored[..., 0] = width - 1 - mirrored[..., 0]
        else:
            mirrored = values.flip(-1)
            if name == "heatmaps":
                mirrored = mirrored[:, mirror]
        choose = flipped.to(values.device).view(-1, *[1] * (values.ndim - 1))
        changed[name] = torch.where(choose, mirrored, values)
    return changed


@settings
class PadCrop:
    """Pad each side by `pad` pixels of gray level `fill` and cut the original size out at a random place."""

    pad: Index = 10
    """Pixels added on each side."""
    fill: Annotated[Index, Field(le=255)] = 0
    """Their gray level: 0 black (AGW), 127 gray (MPANet)."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        check_pixels(sample, "PadCrop")
        places = whole_numbers(draw(len(sample["images"]), generator, 2), 2 * self.pad + 1)
        return crop(sample, places[:, 0], places[:, 1], self.pad, self.fill)


@settings
class Flip:
    """Mirror left to right with probability `p`."""

    p: Share = 0.5
    """Probability that an image is mirrored."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        return flip(sample, draw(len(sample["images"]), generator) < self.p)


def scale_keypoints(keypoints: Tensor, source: Tensor | tuple[int, int], target: tuple[int, int]) -> Tensor:
    """Keypoints (N, K, 3) of images of size `source`, one (h, w) or (N, 2), at the same place of the resized image."""
    sizes = torch.as_tensor(source).to(keypoints).view(-1, 1, 2)
    scale = torch.as_tensor(target).to(keypoints) / sizes
    places = (keypoints[..., :2] + 0.5) * scale.flip(-1) - 0.5  # the middle of pixel 0 lies at 0
    return torch.cat([places, keypoints[..., 2:]], dim=-1)


# --- what pixels hold -------------------------------------------------------------------------------------------------


@settings
class Normalize:
    """uint8 pixels to float32 with ImageNet's mean and deviation per channel, the order that the embedder uses too."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        check_pixels(sample, "Normalize")
        images = sample["images"].to(torch.float32, memory_format=torch.contiguous_format)
        mean = images.new_tensor(IMAGENET_MEAN).view(3, 1, 1)
        std = images.new_tensor(IMAGENET_STD).view(3, 1, 1)
        return {**sample, "images": images.div_(255).sub_(mean).div_(std)}


@settings
class Symmetric:
    """uint8 pixels to float32 from -1 to 1, in place of Normalize, for networks whose own images end in a tanh."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        check_pixels(sample, "Symmetric")
        images = sample["images"].to(torch.float32, memory_format=torch.contiguous_format)
        return {**sample, "images": images.div_(255).sub_(0.5).div_(0.5)}


@settings
class RandomGray:
    """Replace the image by its gray levels with probability `p`, as Pillow's conversion to `L` computes them (CAJ+)."""

    p: Share = 0.1
    """Probability that an image becomes gray."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        check_pixels(sample, "RandomGray")
        images = sample["images"]
        chosen = (draw(len(images), generator) < self.p).nonzero()[:, 0].to(images.device)
        red, green, blue = images[chosen].int().unbind(1)
        gray = (red * 19595 + green * 38470 + blue * 7471 + 0x8000) >> 16  # Pillow's fixed-point ITU-R 601-2 weights
        return {**sample, "images": images.index_copy(0, chosen, gray.to(torch.uint8)[:, None].expand(-1, 3, -1, -1))}


def erase_boxes(
    area: Tensor, aspect: Tensor, row: Tensor, column: Tensor, height: int, width: int
) -> tuple[Tensor, Tensor]:
    """Boxes (N, 4) int64 top, bottom, left, right (ends excluded), and whether one was found (N,), from what was drawn.

    `area` (N, tries) is the share of the image's area and `aspect` (N, tries) height over width of each try; the first
    try that is strictly smaller than the image in both directions counts. `row` and `column` (N,) in [0, 1) place it.
    A box that was not found is 0, 0, 0, 0.
    """
    pixels = area.double() * (height * width)
    # round() of Python and of torch alike send halves to the even neighbor, as the released code did
    heights, widths = (pixels * aspect).sqrt().round().long(), (pixels / aspect).sqrt().round().long()
    fits = (heights < height) & (widths < width)
    erased = fits.any(dim=1)
    first = fits.int().argmax(dim=1, keepdim=True)
    tall, wide = heights.gather(1, first)[:, 0], widths.gather(1, first)[:, 0]
    top = whole_numbers(row, height - tall + 1)
    left = whole_numbers(column, width - wide + 1)
    boxes = torch.stack([top, top + tall, left, left + wide], dim=1)
    return boxes * erased[:, None], erased


def erase(images: Tensor, boxes: Tensor, fill: tuple[float, float, float]) -> Tensor:
    """Images (N, 3, H, W) with each box filled; `boxes` (N, 4) for all channels or (N, 3, 4) for one per channel."""
    height, width = images.shape[-2:]
    boxes = boxes.to(images.device)
    top, bottom, left, right = (boxes if boxes.ndim == 3 else boxes[:, None]).unbind(-1)  # (N, 1) or (N, 3)
    rows = torch.arange(height, device=images.device)
    columns = torch.arange(width, device=images.device)
    in_rows = (rows >= top[..., None]) & (rows < bottom[..., None])
    in_columns = (columns >= left[..., None]) & (columns < right[..., None])
    return torch.where(in_rows[..., None] & in_columns[..., None, :], images.new_tensor(fill).view(3, 1, 1), images)


@settings
class Erase:
    """Fill a random rectangle with probability `p`; after Normalize, with `fill` in normalized values.

    The defaults are CAJ's released code, whose fill is the mean of CIFAR-10's pixels put into normalized values, with
    one rectangle for all channels. `per_channel` is the reading of CAJ's paper: each channel has its own rectangle.
    MCLNet: Erase(0.8, area=(0.1, 0.8)). MPANet: Erase(0.5, area=(0.02, 0.33), aspect=(0.3, 3.3), fill=(0, 0, 0),
    tries=10); `log_aspect` draws the aspect uniformly in its logarithm, as later releases of that library do.
    """

    p: Share = 0.5
    """Probability that an image is erased."""
    area: tuple[Positive, Positive] = (0.02, 0.4)
    """Smallest and largest share of the image that the rectangle covers."""
    aspect: tuple[Positive, Positive] = (0.3, 1 / 0.3)
    """Smallest and largest height over width of the rectangle."""
    fill: tuple[Number, Number, Number] = (0.4914, 0.4822, 0.4465)
    """Red, green and blue of the rectangle, in normalized values."""
    tries: Count = 100
    """Rectangles drawn until one is smaller than the image."""
    per_channel: bool = False
    """Whether each channel has a rectangle of its own, as CAJ's paper reads."""
    log_aspect: bool = False
    """Whether the aspect is uniform in its logarithm."""

    @model_validator(mode="after")
    def ordered(self) -> Self:
        if self.area[0] > self.area[1] or self.aspect[0] > self.aspect[1]:
            raise ArgumentError(
                f"Erase needs area and aspect as (smallest, largest), got area {self.area}, aspect {self.aspect}"
            )
        return self

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        images = sample["images"]
        if images.dtype == torch.uint8:
            raise ArgumentError("Erase fills with normalized values, got uint8 pixels; put it after Normalize")
        chosen, boxes = self.boxes(len(images), images.shape[-2], images.shape[-1], generator)
        boxes = boxes * chosen.view(-1, *[1] * (boxes.ndim - 1))
        return {**sample, "images": erase(images, boxes, self.fill)}

    def boxes(self, images: int, height: int, width: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Which images are erased (images,), and boxes (images, 4), or (images, 3, 4) with `per_channel`."""
        channels = 3 if self.per_channel else 1
        chosen = draw(images, generator) < self.p
        tried = draw(images, generator, channels, self.tries, 2).flatten(0, 1)
        placed = draw(images, generator, channels, 2).flatten(0, 1)
        area = self.area[0] + (self.area[1] - self.area[0]) * tried[..., 0]
        if self.log_aspect:
            aspect = self.aspect[0] * (self.aspect[1] / self.aspect[0]) ** tried[..., 1]
        else:
            aspect = self.aspect[0] + (self.aspect[1] - self.aspect[0]) * tried[..., 1]
        row, column = placed.unbind(-1)
        boxes, _ = erase_boxes(area, aspect, row, column, height, width)
        return chosen, boxes.view(images, 3, 4) if self.per_channel else boxes


def apply_channels(images: Tensor, operation: Tensor) -> Tensor:
    """Float images (N, 3, H, W) after operation (N,): RED, GREEN, BLUE or GRAY in all channels, or UNCHANGED."""
    operation = operation.cpu()
    changed = (operation != UNCHANGED).nonzero()[:, 0]
    copied = operation[changed].clamp(max=BLUE).to(images.device)
    single = images[changed.to(images.device), copied]  # (n, H, W)
    gray = (operation[changed] == GRAY).nonzero()[:, 0]
    if len(gray):
        weights = images.new_tensor(GRAY_WEIGHTS)
        rows = changed[gray].to(images.device)
        mixed = images[rows, 0] * weights[0] + images[rows, 1] * weights[1] + images[rows, 2] * weights[2]
        single = single.index_copy(0, gray.to(images.device), mixed)
    spread = single[:, None].expand(-1, 3, -1, -1)
    if len(changed) == len(images):
        return spread.contiguous()
    return images.index_copy(0, changed.to(images.device), spread)


@settings
class ChannelExchange:
    """Copy red, green or blue, drawn uniformly, to all channels: CAJ's view V' of a visible image, after Normalize.

    `gray` adds the gray levels as a fourth, equally likely choice (an option of the released code, off there).
    """

    gray: bool = False
    """Whether gray levels are a fourth choice."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        images = sample["images"]
        operation = whole_numbers(draw(len(images), generator), 4 if self.gray else 3)
        return {**sample, "images": apply_channels(images, operation)}


@settings
class ChannelJitter:
    """CAJ's operation on infrared images, after Normalize: red, green or blue to all channels (1/4 each), else gray
    levels with probability `gray` (0.5; CAJ+ on SYSU-MM01 0.6) or no change.

    Not a no-op on infrared images: channels that were equal as pixels differ after normalization.
    """

    gray: Share = 0.5
    """Probability of gray levels where no channel is copied."""

    def __call__(self, sample: Sample, generator: torch.Generator) -> Sample:
        images = sample["images"]
        drawn = draw(len(images), generator, 2)
        operation = whole_numbers(drawn[:, 0], 4)  # 3 is the branch of gray or unchanged
        last = torch.where(drawn[:, 1] < self.gray, GRAY, UNCHANGED)
        return {**sample, "images": apply_channels(images, torch.where(operation == 3, last, operation))}
