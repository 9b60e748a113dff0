"""Gray ranges of single cameras, beside the gallery's own rule for pictures of more than 8 bits.

    GALLERY.files/thermal_ranges.json      by camera LOW and HIGH, the values that become black and white

They come from the columns `thermal_low` and `thermal_high` of the lists that are indexed. Every later picture of such a
camera is read with them: by index, watch and the service, whether its list repeats them or not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from pydantic import BaseModel

from vireid.declaration import Range
from vireid.errors import GalleryError
from vireid.images import GrayRule
from vireid.json_file import JsonFile
from vireid.search.gallery import Filter, Gallery
from vireid.system import locked, replacing

LOCK = ".thermal_ranges.lock"


class Written(BaseModel):
    """What the file holds."""

    format: str
    cameras: dict[str, Range]


FILE = JsonFile(
    "thermal_ranges.json", Written, "vireid thermal ranges 1", GalleryError,
    "restore it from a backup: the gray values of these cameras' pictures were read with it",
)  # fmt: skip


class CameraGray:
    """The rule for gray values of more than 8 bits of each camera of an archive; `rule` is that of its gallery."""

    def __init__(self, folder: Path, rule: GrayRule) -> None:
        self.folder, self.rule = folder, rule
        _ = self.ranges  # a damaged file is an error at once

    @property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """By camera, as another process may have written them."""
        return dict(FILE.read(self.folder).cameras) if (self.folder / FILE.name).is_file() else {}

    def of(self, camera: str) -> GrayRule:
        """The rule for the pictures of a camera."""
        ends = self.ranges.get(camera)
        return self.rule if ends is None else GrayRule(*ends)

    def add(self, ranges: Mapping[str, tuple[float, float]], gallery: Gallery) -> None:
        """Keep the ranges of these cameras; GalleryError where a camera has rows that were read by another rule."""
        if ranges.items() <= self.ranges.items():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        with locked(self.folder / LOCK):
            for camera, ends in ranges.items():
                old, new = self.of(camera), GrayRule(*ends)
                if old != new and (rows := gallery.count(Filter(cameras=(camera,)))):
                    raise GalleryError(
                        f"the pictures of the {rows} rows of camera {camera!r} were read with gray values of {old}, "
                        f"this is {new}: a picture would have two vectors; give {old}, or index into a new gallery"
                    )
            kept = {"format": FILE.format, "cameras": self.ranges | dict(ranges)}
            with replacing(self.folder / FILE.name) as partial:
                partial.write_text(json.dumps(kept, indent=1) + "\n")

    @property
    def stamp(self) -> dict[str, str]:
        """What a search says of the ranges of cameras; empty where no camera has one."""
        said = ", ".join(f"{name} {self.of(name)}" for name in sorted(self.ranges))
        return {"gray of cameras": said} if said else {}

    def __str__(self) -> str:
        """The rule of the gallery, and the cameras that have another."""
        return "; ".join([str(self.rule), *(f"{name}: {self.of(name)}" for name in sorted(self.ranges))])
