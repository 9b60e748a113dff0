"""The verbs of data: make, check, cache, pose."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from vireid.cli.options import DATA_HELP, Device, Quiet
from vireid.synthetic.layouts import Layout

data = typer.Typer(no_args_is_help=True, help="Make, check and decode data.")

NoPose = Literal["error", "zeros"]


@data.command("make")
def data_make(
    root: Annotated[Path, typer.Argument(help="Folder to write.")],
    layout: Annotated[Layout, typer.Option(help="Whose folder layout.")] = "sysu",
    people: Annotated[int | None, typer.Option(min=1, help="Number of people.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Pictures of each person and camera.")] = None,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    size: Annotated[tuple[int, int] | None, typer.Option(help="Height and width in pixels.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    scenes: Annotated[int, typer.Option(min=1, help="Backgrounds of each camera.")] = 1,
    masks: Annotated[bool, typer.Option(help="Write part masks too.")] = True,
) -> None:
    """Make the synthetic visible-infrared set in an official layout."""
    from vireid.synthetic.make import make

    settings = {
        "images_per_camera": images,
        "seed": seed,
        "size": size,
        "workers": workers,
        "scenes": scenes,
        "masks": masks,
    }
    print(f"wrote {make(root, layout, people=people, **settings)}")


@data.command("check")
def data_check(
    root: Annotated[str, typer.Argument(help=DATA_HELP)],
    pictures: Annotated[bool, typer.Option(help="Open every picture.")] = True,
    markdown: Annotated[bool, typer.Option("--markdown", help="Print the report as Markdown.")] = False,
    quiet: Quiet = False,
) -> None:
    """Say which data set lies there, what is in it, what is wrong and what to do; exit code 1 if it is not usable."""
    from vireid.data.check import check

    report = check(root, pictures, progress=not quiet)
    print(report.markdown() if markdown else "\n".join(report.lines()))
    raise typer.Exit(0 if report.ok else 1)


@data.command("cache")
def data_cache(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    size: Annotated[tuple[int, int], typer.Option(help="Height and width in pixels.")] = (288, 144),
    folder: Annotated[Path | None, typer.Option(help="Where; inside the data folder by default.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    quiet: Quiet = False,
) -> None:
    """Decode and resize every picture once; training and embedding do it on their own when it is missing."""
    from vireid.data import cache, datasets

    table = datasets.load(data)
    cache.pixels(table, size, folder, workers, not quiet)
    info = cache.cache_info(table, size, folder)
    print(f"wrote {info.path} ({info.rows} pictures, {info.bytes / 1e6:.1f} MB)")


@data.command("pose")
def data_pose(
    data: Annotated[str, typer.Argument(help=DATA_HELP)],
    estimator: Annotated[
        str,
        typer.Option(
            help="vitpose:FOLDER, rtmpose:FILE.onnx, openpose:FOLDER, arrays:FILE.npz, or template (no pose)."
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="File to write; ROOT/keypoints.npz by default.")] = None,
    missing: Annotated[NoPose, typer.Option(help="A picture without a pose is an error, or gets zeros.")] = "error",
    batch_size: Annotated[int, typer.Option(min=1, help="Pictures per forward pass.")] = 32,
    device: Device = "auto",
    replace: Annotated[bool, typer.Option("--replace", help="Write over a file that something else wrote.")] = False,
    quiet: Quiet = False,
) -> None:
    """Write the pose of every picture (COCO-17 keypoints) for methods that need it; a second call continues."""
    from vireid.data.pose.keypoints_file import write_poses

    options = {"missing": missing, "batch_size": batch_size, "device": device, "replace": replace}
    print(f"wrote {write_poses(data, estimator, out=out, progress=not quiet, **options)}")
