"""The verbs that keep an archive over the years: backup, restore, stats, reindex."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.options import BatchSize, Device, Files, GalleryUrl, OwnMethod
from vireid.types import Backend


def backup(
    to: Annotated[Path, typer.Argument(metavar="FILE", help="The tar file to write.")],
    gallery: GalleryUrl,
    files: Files = None,
) -> None:
    """Back up a gallery and its files into one tar file; the service may run: vireid backup FILE --gallery PATH."""
    from vireid.workflows.upkeep import back_up

    print(back_up(gallery, to, files))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `vireid backup` wrote.")],
    gallery: GalleryUrl,
    files: Files = None,
) -> None:
    """Restore a backup into a new gallery, a folder or Milvus: vireid restore FILE --gallery PATH."""
    from vireid.workflows import upkeep

    print(upkeep.restore(file, gallery, files))


def stats(
    gallery: GalleryUrl,
    files: Files = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print what a gallery holds: rows, cameras, times, sizes, marks, alarms; checks the audit log."""
    from vireid.workflows import upkeep

    figures = upkeep.stats(gallery, files)
    print(figures.json() if as_json else "\n".join(figures.lines()))


def reindex(
    old: Annotated[str, typer.Argument(metavar="GALLERY", help="The gallery whose rows are embedded again.")],
    to: Annotated[str, typer.Option(help="The new model: a name, a run folder or a bundle.")],
    gallery: Annotated[str | None, typer.Option(help="The new gallery; GALLERY-MODEL by default.")] = None,
    files: Annotated[Path | None, typer.Option(help="Files of the old gallery; GALLERY.files by default.")] = None,
    new_files: Annotated[Path | None, typer.Option(help="Files of the new one; PATH.files by default.")] = None,
    backend: Annotated[Backend, typer.Option(help="What computes the vectors.")] = "auto",
    device: Device = "auto",
    batch_size: BatchSize = 64,
    pose: Annotated[str | None, typer.Option(help="For a network that takes heat maps; see vireid index.")] = None,
    method: OwnMethod = None,
) -> None:
    """Embed all rows of a gallery with another model, from the pictures or, where those are gone, from thumbnails."""
    from vireid.search.archive import files_of
    from vireid.workflows import upkeep

    new, done = upkeep.reindex(
        old, to, gallery, files=files, new_files=new_files, backend=backend, device=device, batch_size=batch_size,
        pose=pose, method=method,
    )  # fmt: skip
    print(upkeep.summary(new, done, files_of(new, new_files)))
    print(f"next: vireid serve --gallery {new} --model {to}")


def add_to(app: typer.Typer) -> None:
    """Make these functions sub-commands."""
    for verb in (backup, restore, stats, reindex):
        app.command(verb.__name__, rich_help_panel="Administration")(verb)
