"""Fonts for figures: Pillow's own for Latin text, a Chinese font of this machine where one is installed."""

from __future__ import annotations

import os
from functools import lru_cache
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.ImageFont | ImageFont.FreeTypeFont
FOLDERS = (
    "~/.local/share/fonts",
    "~/.fonts",
    "/usr/share/fonts",
    "/usr/local/share/fonts",
    "/System/Library/Fonts",
    "/Library/Fonts",
    "~/Library/Fonts",
    "C:/Windows/Fonts",
)
# file names of fonts with Chinese glyphs, the better looking first
CHINESE = ("notosanscjk", "notosanssc", "sourcehansans", "pingfang", "msyh", "wqy-microhei", "wqy-zenhei")
CHINESE += ("stheiti", "simhei", "droidsansfallback", "simsun")
INSTALL = "install one, e.g. `apt install fonts-noto-cjk` or `fonts-wqy-microhei`"


@lru_cache
def chinese_file(folders: tuple[str, ...] = FOLDERS) -> Path | None:
    """A font file with Chinese glyphs, or None where this machine has none."""
    files: dict[str, Path] = {}
    for folder in folders:
        for parent, _, names in os.walk(Path(folder).expanduser()):
            for name in names:
                stem = name.lower().replace("_", "-")
                if stem.endswith((".ttf", ".ttc", ".otf")) and "bold" not in stem:
                    kind = next((kind for kind in CHINESE if stem.startswith(kind)), None)
                    if kind and kind not in files:
                        files[kind] = Path(parent) / name
    return next((files[kind] for kind in CHINESE if kind in files), None)


def font(size: int, chinese: Path | None = None) -> Font:
    """A font of `size` pixels: of the Chinese file, or Pillow's own, which knows Latin letters only."""
    return ImageFont.truetype(str(chinese), size) if chinese else ImageFont.load_default(size)


def readable(text: str, chinese: Path | None) -> str:
    """`text` with a question mark for each letter that the font would draw as an empty box."""
    if chinese:
        return text
    return "".join(letter if letter.isascii() else "?" for letter in text)


def width(text: str, chosen: Font) -> int:
    """Pixels from the left to the right end."""
    left, _, right, _ = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font=chosen)
    return int(right - left)


def wrap(text: str, chosen: Font, max_width: int) -> list[str]:
    """Lines of at most `most` pixels, broken at spaces, and inside words that are longer than a line."""
    lines, line = [], ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if width(longer, chosen) <= max_width:
            line = longer
            continue
        if line:
            lines.append(line)
        while width(word, chosen) > max_width:
            cut = next(n for n in range(len(word) - 1, 0, -1) if n == 1 or width(word[:n], chosen) <= max_width)
            lines.append(word[:cut])
            word = word[cut:]
        line = word
    return [*lines, line] if line else lines
