"""The verbs of the search product on the command line: only options are read here; imports no torch."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Literal

import typer

from vireid.cli.options import BatchSize, Device, Quiet, note, renamed_options

Role = Literal["search", "ingest", "admin"]
PictureModality = Literal["auto", "visible", "infrared"]
Backend = Literal["torch", "onnxruntime", "openvino"]
TrackerName = Literal["bytetrack", "sort", "ocsort", "none"]
RowsOf = Literal["crops", "tracks"]

Target = Annotated[Path, typer.Argument(metavar="RUN_OR_BUNDLE", help="A run folder, or what `vireid export` wrote.")]
GalleryUrl = Annotated[str, typer.Option(help="lance:PATH or a bare PATH, or milvus:URI.")]
Files = Annotated[Path | None, typer.Option(help="Thumbnails, marks, audit log; PATH.files by default.")]
Runtime = Annotated[Backend, typer.Option(help="What computes the vectors.")]
Pose = Annotated[
    str | None,
    typer.Option(help="For a network that takes heat maps (SPOT): vitpose:FOLDER, rtmpose:FILE.onnx, template, zeros."),
]
TokenFile = Path("tokens.json")
FORMER_OPTIONS = {  # of version 0.1
    "--rate": "--fps",
    "--least-score": "--min-score",
    "--every": "--interval",
    "--most": "--max-crops",
    "--least-height": "--min-height",
    "--again": "--overwrite",
}


def index(
    target: Target,
    source: Annotated[Path, typer.Argument(help="A folder of crops or videos, a CSV that lists them, or a video.")],
    gallery: GalleryUrl,
    files: Files = None,
    modality: Annotated[PictureModality, typer.Option(help="Of pictures whose list does not say.")] = ("auto"),
    file_time: Annotated[bool, typer.Option("--file-time", help="Take a file's time for its picture's.")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace rows that are in the gallery.")] = False,
    detector: Annotated[Path | None, typer.Option(help="Videos: a folder with weights of RT-DETRv2 or D-FINE.")] = None,
    boxes: Annotated[Path | None, typer.Option(help="Videos: people's boxes, a CSV or MOT file or a folder.")] = None,
    tracker: Annotated[TrackerName, typer.Option(help="Videos: which boxes are one person.")] = "bytetrack",
    fps: Annotated[float, typer.Option(help="Videos: frames a second that the detector sees.")] = 5.0,
    min_score: Annotated[float, typer.Option(help="Videos: smallest score of a detected box, 0..1.")] = 0.3,
    interval: Annotated[float, typer.Option(help="Videos: seconds between two crops of a track.")] = 1.0,
    max_crops: Annotated[int, typer.Option(min=1, help="Videos: crops of a track.")] = 8,
    min_height: Annotated[float, typer.Option(help="Videos: pixels; smaller boxes are left out.")] = 40.0,
    start: Annotated[str, typer.Option(help="Video: its first moment, 2026-11-24T21:04:11+01:00.")] = "",
    rows: Annotated[RowsOf, typer.Option(help="Videos: a row for each crop, or for each track.")] = "crops",
    backend: Runtime = "torch",
    device: Device = "auto",
    batch_size: BatchSize = 64,
    pose: Pose = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes that share the work, by Ray.")] = None,
    ray: Annotated[str | None, typer.Option(help="A cluster of Ray: auto, or HOST:PORT.")] = None,
) -> None:
    """Index your own pictures and videos: vireid index RUN SOURCE --gallery PATH. Run again, it resumes."""
    from vireid.ingest.segments import VideoSettings
    from vireid.workflows.service import index_pictures

    videos = None
    if detector is not None or boxes is not None:
        videos = VideoSettings(
            detector, boxes, tracker, fps, min_score, interval_s=interval, max_crops=max_crops, min_height=min_height,
            device=device,
        )  # fmt: skip
    options = {"files": files, "modality": modality, "file_time": file_time, "overwrite": overwrite, "rows": rows}
    more = {"videos": videos, "start": start, "backend": backend, "device": device, "batch_size": batch_size}
    many = {"pose": pose, "workers": workers, "ray": ray}
    indexed = index_pictures(target, source, gallery, **options, **more, **many)
    print(
        f"added {indexed.added} pictures, {indexed.present} were in the gallery, {len(indexed.refused)} cannot be read"
    )
    print(f"next: vireid serve {target} --gallery {gallery}")
    if indexed.failed:
        print(f"{len(indexed.failed)} pieces failed, the others are done; run the same command again")
        raise typer.Exit(1)
    raise typer.Exit(1 if indexed.refused and not indexed.added and not indexed.present else 0)


def serve(
    target: Target,
    gallery: GalleryUrl,
    files: Files = None,
    host: Annotated[str, typer.Option(help="Address to listen on; another than this machine needs --tokens.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free port.")] = 8000,
    name: Annotated[list[str] | None, typer.Option(help="Host name that is answered to, repeatable.")] = None,
    tokens: Annotated[Path | None, typer.Option(help="Who may do what; see `vireid token`.")] = None,
    keep_days: Annotated[float | None, typer.Option(help="Forget what is older, every hour.")] = None,
    purpose: Annotated[bool, typer.Option("--purpose", help="Every search has to say what it is for.")] = False,
    certificate: Annotated[Path | None, typer.Option(help="TLS certificate (PEM).")] = None,
    key: Annotated[Path | None, typer.Option(help="Key of the certificate (PEM).")] = None,
    behind_tls: Annotated[bool, typer.Option("--behind-tls", help="Browsers reach it by https of a proxy.")] = False,
    refine: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Offer re-ranking by this run of nformer on the same base.")
    ] = None,
    pose: Pose = None,
    backend: Runtime = "torch",
    device: Device = "auto",
) -> None:
    """Serve the search page and its API on this machine."""
    from vireid.workflows.service import open_service, run_service

    service = open_service(
        target,
        gallery,
        files=files,
        host=host,
        names=name or (),
        tokens=tokens,
        keep_days=keep_days,
        purpose=purpose,
        secure=certificate is not None or behind_tls,
        refine=refine,
        pose=pose,
        backend=backend,
        device=device,
    )
    run_service(service, host, port, certificate, key)


def forget(
    gallery: GalleryUrl,
    files: Files = None,
    pid: Annotated[list[str] | None, typer.Option(help="Identity, repeatable.")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    track: Annotated[list[str] | None, typer.Option(help="Repeatable.")] = None,
    before: Annotated[datetime | None, typer.Option(help="Rows of before this time.")] = None,
    older_than_days: Annotated[float | None, typer.Option(help="Retention: rows and marks older than this.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Delete people for good: vectors, thumbnails, marks and old versions. All conditions together."""
    from vireid.search.gallery import Filter
    from vireid.workflows.service import forget_rows

    where = Filter(
        cameras=tuple(camera or ()),
        pids=tuple(pid or ()),
        tracks=tuple(track or ()),
        before_s=before.timestamp() if before else None,
    )
    ask = (lambda rows: True) if yes else (lambda rows: typer.confirm(f"delete {rows} rows for good?", err=True))
    print(forget_rows(gallery, where, files=files, older_than_days=older_than_days, confirm=ask))


def token(
    name: Annotated[str, typer.Argument(help="Whose it is; it stands in the audit log.")],
    role: Annotated[Role | None, typer.Option(help="search, ingest (add only) or admin.")] = None,
    file: Annotated[Path, typer.Option(help="Where its digest is kept.")] = TokenFile,
    days: Annotated[float | None, typer.Option(help="How long it is valid; as long as it is in the file.")] = None,
    revoke: Annotated[bool, typer.Option("--revoke", help="Take it out.")] = False,
) -> None:
    """Make a token for the search service and print it once, or take one out."""
    from vireid.workflows.service import token as change

    print(change(file, name, role, days, revoke))


def audit(
    gallery: GalleryUrl,
    files: Files = None,
    last: Annotated[int, typer.Option(min=0, help="Entries to print, newest first.")] = 20,
) -> None:
    """Check that the audit log was not changed, and print its last entries."""
    import json

    from vireid.workflows.service import audit_of

    lines, entries = audit_of(gallery, files, last)
    for entry in entries:
        print(json.dumps(entry, ensure_ascii=False))
    note(f"{lines} lines, each follows the one before")


def search_demo(
    root: Annotated[Path, typer.Option(help="Folder of the demo's data and runs.")] = Path("runs/demo"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    serve: Annotated[bool, typer.Option(help="Start the page at the end.")] = True,
    quiet: Quiet = False,
) -> None:
    """Take the demo's network (or train it), index a synthetic night of six cameras, and open the search page."""
    from vireid.workflows.search_demo import run_search_demo

    run_search_demo(root, port, serve=serve, progress=not quiet)


def add_to(app: typer.Typer) -> None:
    """Make these functions sub-commands."""
    app.command("index", cls=renamed_options(FORMER_OPTIONS), rich_help_panel="Search")(index)
    for verb in (serve, search_demo):
        app.command(verb.__name__.replace("_", "-"), rich_help_panel="Search")(verb)
    for verb in (forget, token, audit):
        app.command(verb.__name__, rich_help_panel="Administration")(verb)
