"""A picture of an iPhone's kind: HEIC, 32 x 64 upright, stored turned with the orientation that libheif applies."""

from __future__ import annotations

import base64

import numpy as np

COLORS = ((200, 40, 40), (40, 180, 60), (40, 60, 200), (230, 220, 60))  # of the quarters, from the upper left on
DATA = (  # written by pillow-heif 1.8.1, whose encoder is not needed to read it
    "AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAchtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAAAAAAADRpbG9j"
    "AAAAAERAAAIAAQAAAAAB7AABAAAAAAAAALYAAgAAAAACogABAAAAAAAAACQAAAA4aWluZgAAAAAAAgAAABVpbmZlAgAAAAABAABodmMxAAAA"
    "ABVpbmZlAgAAAQACAABFeGlmAAAAAA5waXRtAAAAAAABAAABB2lwcnAAAADmaXBjbwAAAHZodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNg"
    "AAEAGEABDAH//wNwAAADAJAAAAMAAAMAHroCQGEAAQAqQgEBA3AAAAMAkAAAAwAAAwAeoCCBBZbq5Ka5uAhoMCAAAAMDIAAAAwAhYgABAAZE"
    "AcFzwIkAAAATY29scm5jbHgAAQANAAaAAAAAFGlzcGUAAAAAAAAAQAAAAEAAAAAoY2xhcAAAAEAAAAABAAAAIAAAAAEAAAAAAAAAAv///+AA"
    "AAACAAAAEHBpeGkAAAAAAwgICAAAAAlpcm90AwAAABlpcG1hAAAAAAAAAAEAAQaBAgMFhIYAAAAaaXJlZgAAAAAAAAAOY2RzYwACAAEAAQAA"
    "AOJtZGF0AAAAsigBrw7gNIIMV676j//z2f//rE05ta9/+gpNLxwpv+Cl/kwqKHX7no31j0skO+hrYSOR0hZCygaPuQE5MSRptbVHLhtHmKI4"
    "3qUmpNcYMn2UB+s7w//BQ6X+FB/E5/t/sg7D+rs7/3co7wQe6dFHkAJiL3I8Z1aXoNG9kKI5/ATA5pu2LeaRJPXyCuqnSnniYGn2vLP4xcI9"
    "E2Ov3iGMz17MIaAJpqyycyfok+XwlBeaw4MAAAAGRXhpZgAATU0AKgAAAAgAAQESAAMAAAABAAYAAAAAAAA="
)


def heic() -> bytes:
    """The file."""
    return base64.b64decode(DATA)


def quarters() -> np.ndarray:
    """Its pixels (64, 32, 3) before they were compressed."""
    return np.array(COLORS, dtype=np.uint8).reshape(2, 2, 3).repeat(32, 0).repeat(16, 1)
