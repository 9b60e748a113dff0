"""The verbs of the search product on the command line: only options are read here; imports no torch."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import typer

from vireid.cli.from_settings import takes
from vireid.cli.options import (
    Files,
    GalleryUrl,
    Model,
    Quiet,
    WithoutHidden,
    chosen_model,
    holds_model,
    note,
    renamed_options,
    show,
)
from vireid.models import DEFAULT
from vireid.wording import counted
from vireid.workflows.options import (
    ForgetOptions,
    GroupingOptions,
    IndexOptions,
    QueryOptions,
    ServeOptions,
    TokenOptions,
    WatchOptions,
)

Former = Annotated[Path | None, typer.Argument(hidden=True, metavar="")]  # in 0.1 the model stood here
FORMER_OPTIONS = {  # of version 0.1
    "--rate": "--fps",
    "--least-score": "--min-score",
    "--every": "--interval",
    "--most": "--max-crops",
    "--least-height": "--min-height",
    "--again": "--overwrite",
}


@takes(IndexOptions, names={"interval_s": "--interval"}, skip=("label", "margin", "segment_s"))
def index(
    sources: Annotated[
        list[Path],
        typer.Argument(metavar="SOURCE", help="Folders of crops or videos, CSVs that list them, or videos."),
    ],
    gallery: GalleryUrl,
    model: Model = None,
    *,
    options: IndexOptions,
) -> None:
    """Index your own pictures and videos: vireid index SOURCE --gallery PATH. A second run resumes."""
    from vireid.workflows.service import index_pictures

    former = sources[0] if len(sources) > 1 and holds_model(sources[0]) else None
    target = chosen_model(former, model)
    indexed = index_pictures(target, sources if former is None else sources[1:], gallery, options)
    print(indexed)
    named = "" if target == DEFAULT else f" --model {target}"
    method = f" --method {options.method}" if options.method else ""
    print(f"next: vireid serve --gallery {gallery}{named}{method}")
    if indexed.failed:
        print(f"{counted(len(indexed.failed), 'piece')} failed, the others are done; run the same command again")
        raise typer.Exit(1)
    raise typer.Exit(1 if indexed.refused and not indexed.added and not indexed.present else 0)


@takes(QueryOptions, names={"cameras": "--camera", "gap_s": "--gap", "join_s": "--join"})
def search(
    pictures: Annotated[list[Path], typer.Argument(metavar="PICTURE", help="One or more pictures of one person.")],
    gallery: GalleryUrl,
    model: Model = None,
    html: Annotated[Path | None, typer.Option(help="Also write an HTML page with the pictures.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    *,
    options: QueryOptions,
) -> None:
    """Search a gallery for the person in a picture: vireid search PICTURE --gallery PATH."""
    from vireid.workflows.search import search_pictures

    answer = search_pictures(pictures, gallery, model or DEFAULT, options)
    if as_json:
        print(answer.json())
    else:
        show(answer, "table")
    if html is not None:
        note(f"wrote {answer.html(html)}")


@takes(GroupingOptions, names={"cameras": "--camera"})
def identities(
    gallery: GalleryUrl,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON in place of the table.")] = False,
    *,
    options: GroupingOptions,
) -> None:
    """Group the tracks of all cameras by person, without a query: vireid identities --gallery PATH."""
    from vireid.workflows.identities import find_identities

    report = find_identities(gallery, model or DEFAULT, options)
    if as_json:
        print(report.json())
    else:
        show(report, "table")


@takes(WatchOptions, names={"status_s": "--status"})
def watch(
    cameras: Annotated[Path, typer.Argument(metavar="CAMERAS.yaml", help="The cameras; see docs/serve/watch.md.")],
    gallery: GalleryUrl,
    model: Model = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print each status as a line of JSON.")] = False,
    *,
    options: WatchOptions,
) -> None:
    """Index live cameras as they run, and raise alarms: vireid watch CAMERAS.yaml --gallery PATH."""
    import json

    from vireid.live.watch import line
    from vireid.workflows.watch import watch_cameras

    def show(status: dict[str, Any]) -> None:
        print(json.dumps(status, ensure_ascii=False) if as_json else line(status), flush=True)

    watch_cameras(cameras, gallery, model or DEFAULT, options, show=show)


@takes(ServeOptions, names={"names": "--name", "proxies": "--proxy"})
def serve(
    gallery: Annotated[
        list[str],
        typer.Option(help="A gallery: a folder (PATH or lance:PATH) or milvus:URI, repeatable; NAME=PATH names it."),
    ],
    former: Former = None,
    model: Model = None,
    *,
    options: ServeOptions,
) -> None:
    """Serve the search page and its API on this machine."""
    from vireid.workflows.service import open_services, run_service

    run_service(open_services(chosen_model(former, model), gallery, options), options)


@takes(ForgetOptions)
def forget(
    gallery: GalleryUrl,
    row: Annotated[list[str] | None, typer.Option("--id", help="Id of a row, repeatable; no other condition.")] = None,
    pid: Annotated[list[str] | None, typer.Option(help="Identity of the rows, repeatable.")] = None,
    camera: Annotated[list[str] | None, typer.Option(help="Camera of the rows, repeatable.")] = None,
    track: Annotated[list[str] | None, typer.Option(help="Track of the rows, repeatable.")] = None,
    before: Annotated[datetime | None, typer.Option(help="Rows that are older than this time.")] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Delete without a question.")] = False,
    *,
    options: ForgetOptions,
) -> None:
    """Delete people permanently: rows that meet all conditions, with vectors, thumbnails, marks, alarms, old versions.

    Names the pictures, recordings and boxes on this machine that still show them.
    """
    from vireid.search.gallery import Filter
    from vireid.workflows.service import forget_rows

    where = Filter(
        cameras=tuple(camera or ()),
        pids=tuple(pid or ()),
        tracks=tuple(track or ()),
        before_s=before.timestamp() if before else None,
    )
    ask = (
        (lambda rows: True)
        if yes
        else (lambda rows: typer.confirm(f"permanently delete {counted(rows, 'row')}?", err=True))
    )
    print(forget_rows(gallery, where, options, ids=tuple(row or ()), confirm=ask))


@takes(TokenOptions, names={"galleries": "--gallery"})
def token(
    name: Annotated[str, typer.Argument(help="Name of its user, for the audit log.")],
    *,
    options: TokenOptions,
) -> None:
    """Make a token for the search service and print it once, or revoke one."""
    from vireid.workflows.service import token as change

    print(change(name, options))


def audit(
    gallery: GalleryUrl,
    files: Files = None,
    last: Annotated[int, typer.Option(min=0, help="Entries to print, newest first.")] = 20,
) -> None:
    """Check that the audit log is unaltered, and print its last entries."""
    import json

    from vireid.workflows.service import audit_of

    lines, entries = audit_of(gallery, files, last)
    for entry in entries:
        print(json.dumps(entry, ensure_ascii=False))
    note(f"the audit log is unaltered: {counted(lines, 'line')}, each with the digest of the one before")


def search_demo(
    root: Annotated[Path, typer.Option(help="Folder of the demo's gallery.")] = Path("runs/demo"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    model: Model = None,
    serve: Annotated[bool, typer.Option(help="Start the page at the end.")] = True,
    quiet: Quiet = False,
) -> None:
    """Index a synthetic night of six cameras with the model that comes with vireid, and open the search page."""
    from vireid.workflows.search_demo import run_search_demo

    run_search_demo(root, port, model=model or DEFAULT, serve=serve, progress=not quiet)


def add_to(app: typer.Typer) -> None:
    """Make these functions sub-commands."""
    app.command("index", cls=renamed_options(FORMER_OPTIONS), rich_help_panel="Search")(index)
    for verb in (watch, search, serve, search_demo):
        kind = WithoutHidden if verb is serve else None
        app.command(verb.__name__.replace("_", "-"), cls=kind, rich_help_panel="Search")(verb)


def add_administration_to(app: typer.Typer) -> None:
    """Make the verbs sub-commands that search nobody by a picture; the order of calls is that of `vireid --help`."""
    for verb in (identities, forget, token, audit):
        app.command(verb.__name__, rich_help_panel="Administration")(verb)
