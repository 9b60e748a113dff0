"""Pictures a second of the synthetic renderer on one core, alone and with JPEG and mask encoding.

    python benchmarks/synthetic_speed.py [--pictures 600]

Prints process time, which other programs on the machine disturb less than wall time, and the share of each step.
"""

import argparse
import io
import os
import time
from collections.abc import Callable

from PIL import Image

from vireid.synthetic.make import CAMERAS, JPEG_QUALITY, Picture, picture


def jpeg(shown: Picture) -> None:
    """Encode as `make` does."""
    Image.fromarray(shown.image).save(io.BytesIO(), "JPEG", quality=JPEG_QUALITY)


def jpeg_and_mask(shown: Picture) -> None:
    """Encode picture and mask as `make` does."""
    jpeg(shown)
    Image.fromarray(shown.parts).convert("P").save(io.BytesIO(), "PNG", compress_level=1)


def rate(layout: str, count: int, then: Callable[[Picture], object], size: tuple[int, int]) -> tuple[float, float]:
    """Pictures a second of process time and of wall time, twelve pictures a person and camera as in the default set."""
    cameras = CAMERAS[layout]
    for camera in cameras:  # the panoramas are made once a process
        picture(0, camera, 0, size=size)
    wall, cpu = time.perf_counter(), time.process_time()
    for n in range(count):
        pid, rest = divmod(n, 12 * len(cameras))
        then(picture(pid + 1, cameras[rest // 12], rest % 12, size=size))
    return count / (time.process_time() - cpu), count / (time.perf_counter() - wall)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pictures", type=int, default=600)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, one used; {given.pictures} pictures\n")
    print("| layout, size | step | pictures / s (process time) | pictures / s (wall time) |\n|---|---|---|---|")
    for layout, size in (("sysu", (288, 144)), ("llcm", (288, 144)), ("regdb", (128, 64))):
        for name, then in (("picture", id), ("picture + JPEG", jpeg), ("picture + JPEG + mask", jpeg_and_mask)):
            cpu, wall = rate(layout, given.pictures, then, size)
            print(f"| {layout}, {size[0]} x {size[1]} | {name} | {cpu:.0f} | {wall:.0f} |")


if __name__ == "__main__":
    main()
