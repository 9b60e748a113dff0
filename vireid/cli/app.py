"""vireid on the command line: one sub-command per verb. Only options are read here; `--help` imports no torch."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from vireid.cli import search as search_verbs
from vireid.cli.options import BatchSize, Device, Quiet, note, show_log
from vireid.data.datasets import names
from vireid.errors import ArgumentError

DEBUG = "--debug"
# errors that tell the user what to do; another kind is a fault of vireid and shows its traceback
TOLD = (ValueError, FloatingPointError, OSError, MemoryError, ModuleNotFoundError)
MEMORY = "; lower the batch (sampler.pids, sampler.images, --batch-size) or size=[height,width], or use a smaller width"


class Verbs(TyperGroup):
    """Sub-commands whose known errors become one message on stderr and exit code 1."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        ctx.meta[DEBUG] = DEBUG in args  # it may stand anywhere
        return super().parse_args(ctx, [arg for arg in args if arg != DEBUG])

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            note("stopped. A training goes on from its last epoch with --resume and the same --run.")
            raise typer.Exit(130) from None
        except BrokenPipeError:  # the reader of a pipe, `head` say, has left
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(1) from None
        except Exception as error:
            message = message_of(error)
            if message is None or ctx.meta[DEBUG]:
                raise
            note(f"error: {message}")
            raise typer.Exit(1) from None


def message_of(error: BaseException) -> str | None:
    """What to tell the user, or None for an error that nobody foresaw."""
    kind = type(error)
    if isinstance(error, RuntimeError) and "OutOfMemory" in kind.__name__:  # torch's is a RuntimeError
        ours = kind.__module__.startswith("vireid")
        return str(error) if ours else f"the device is out of memory ({str(error).partition(chr(10))[0]}){MEMORY}"
    if isinstance(error, MemoryError):
        return f"this machine is out of memory ({error or 'no size told'}){MEMORY}"
    if isinstance(error, OSError) and error.errno is not None and error.filename is not None:
        return f"{error.strerror}: {error.filename}"
    return str(error) if isinstance(error, TOLD) else None


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
    help=f"Visible-infrared person re-identification. Add {DEBUG} to any command to see where an error comes from.",
)
data_app = typer.Typer(no_args_is_help=True, help="Make, check and decode data.")
app.add_typer(data_app, name="data")


Layout = Literal["sysu", "regdb", "llcm"]
NoPose = Literal["error", "zeros"]
Precision = Literal["float32", "bfloat16"]
Select = Literal["last", "heldout", "test"]
Similarity = Literal["cosine", "euclidean"]
Form = Literal["table", "md", "csv", "json", "latex"]
Lang = Literal["en", "zh"]

DATA_HELP = f"NAME=PATH with NAME {', '.join(names())} or ./your_file.py, or a bare PATH."
RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder that `vireid train` wrote.")]
OtherData = Annotated[str | None, typer.Option(help=DATA_HELP + " By default what the run was trained on.")]
Trial = Annotated[
    int | None, typer.Option(help="Which split of the identities, where the data has several (RegDB: 0 to 9).")
]
Cross = Annotated[bool, typer.Option("--cross", help="Allow other data than the run's own; stamped on the figures.")]
Flip = Annotated[bool, typer.Option("--flip", help="Average with the mirrored image; stamped on the figures.")]
OwnMethod = Annotated[str | None, typer.Option("--method", help="Your method's file, if its network is your own.")]
OutForm = Annotated[Form, typer.Option("--format", help="How the figures are printed.")]


@app.callback(invoke_without_command=True)
def start(version: Annotated[bool, typer.Option("--version", help="Print the version and leave.")] = False) -> None:
    if version:
        from vireid.version import __version__

        print(__version__)
        raise typer.Exit
    show_log()


@data_app.command("make")
def data_make(
    root: Annotated[Path, typer.Argument(help="Folder to write.")],
    layout: Annotated[Layout, typer.Option(help="Whose folder layout.")] = "sysu",
    people: Annotated[int | None, typer.Option(min=1, help="Number of people.")] = None,
    images: Annotated[int | None, typer.Option(min=1, help="Pictures of each person and camera.")] = None,
    seed: int = 0,
    size: Annotated[tuple[int, int] | None, typer.Option(help="Height and width in pixels.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Processes; all cores by default.")] = None,
    masks: Annotated[bool, typer.Option(help="Write part masks too.")] = True,
) -> None:
    """Make the synthetic visible-infrared set in an official layout."""
    from vireid.synthetic.make import make

    settings = {"images_per_camera": images, "seed": seed, "size": size, "workers": workers, "masks": masks}
    print(f"wrote {make(root, layout, people=people, **settings)}")


@data_app.command("check")
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


@data_app.command("cache")
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


@data_app.command("pose")
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
    """Write the pose of every picture (COCO-17 keypoints) for methods that need it; a second call goes on."""
    from vireid.data.pose.keypoints_file import write_poses

    options = {"missing": missing, "batch_size": batch_size, "device": device, "replace": replace}
    print(f"wrote {write_poses(data, estimator, out=out, progress=not quiet, **options)}")


@app.command()
def train(
    method: Annotated[str, typer.Argument(help="A method by name (`vireid methods`), or ./your_file.py.")],
    data: Annotated[str, typer.Option(help=DATA_HELP)],
    settings: Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings by name.")] = None,
    trial: Trial = None,
    run: Annotated[Path | None, typer.Option(help="Run folder; runs/DATA/METHOD/DATE-TIME by default.")] = None,
    weights: Annotated[str | None, typer.Option(help="What to start from: imagenet, a file or an address.")] = None,
    seed: int = 0,
    device: Device = "auto",
    precision: Precision = "float32",
    compile: Annotated[bool, typer.Option("--compile", help="Compile the network with torch.compile.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on in the folder given by --run.")] = False,
    config: Annotated[Path | None, typer.Option(help="Settings as a YAML file; key=value words win.")] = None,
    select: Annotated[Select, typer.Option(help="Which epoch is reported: last, or best on heldout or test.")] = "last",
    holdout: Annotated[int, typer.Option(min=0, help="With --select heldout: hold out this many people.")] = 0,
    tensorboard: Annotated[bool, typer.Option("--tensorboard", help="Also write a TensorBoard log.")] = False,
    quiet: Quiet = False,
) -> None:
    """Train a method: vireid train agw --data sysu=PATH --weights imagenet epochs=60.

    On several GPUs: torchrun --nproc-per-node=2 -m -- vireid train ... (without the second -- torchrun takes --run).
    """
    from vireid.workflows.training import train_run

    folder = train_run(
        method,
        data,
        trial=trial,
        run=run,
        weights=weights,
        seed=seed,
        device=device,
        precision=precision,
        compile=compile,
        resume=resume,
        tensorboard=tensorboard,
        config=config,
        select=select,
        holdout=holdout,
        settings=settings or (),
        progress=not quiet,
        say=note,
    )
    if os.environ.get("RANK", "0") == "0":
        print(f"wrote {folder}; next: vireid evaluate {folder}")


@app.command()
def embed(
    run: RunFolder,
    data: OtherData = None,
    trial: Trial = None,
    flip: Flip = False,
    split: Annotated[str, typer.Option(help="test (with query and gallery), train or val.")] = "test",
    batch_size: BatchSize = 64,
    device: Device = "auto",
    method: OwnMethod = None,
    cross: Cross = False,
    quiet: Quiet = False,
) -> None:
    """Write RUN/embeddings/LAYER.npz; files that are up to date are left alone."""
    from vireid.workflows.evaluation import embed_run

    shared = {"batch_size": batch_size, "device": device, "method": method, "cross": cross, "progress": not quiet}
    embed_run(run, data, trial=trial, flip=flip, split=split, say=print, **shared)


@app.command()
def evaluate(
    run: RunFolder,
    protocol: Annotated[list[str] | None, typer.Option(help="By name, repeatable; all of the data by default.")] = None,
    data: OtherData = None,
    trial: Trial = None,
    draw: Annotated[str | None, typer.Option(help="SYSU-MM01: whose draw of the gallery, official or agw.")] = None,
    layer: Annotated[str | None, typer.Option(help="neck, pooled, ... or all; the deployed one by default.")] = None,
    flip: Flip = False,
    refine: Annotated[
        Path | None, typer.Option(metavar="RUN", help="Refine with this run of nformer; stamped on the figures.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Refining: images ignored for a query are not its neighbors either.")
    ] = False,
    rerank: Annotated[bool, typer.Option("--rerank", help="k-reciprocal re-ranking; stamped on the figures.")] = False,
    k1: Annotated[int, typer.Option(min=1, help="With --rerank: neighbors.")] = 20,
    k2: Annotated[int, typer.Option(min=1, help="With --rerank: neighbors that a vector is averaged over.")] = 6,
    similarity: Annotated[Similarity | None, typer.Option(help="By default that of the run's recipe.")] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Manifest: column whose equal value is ignored.")] = None,
    form: OutForm = "table",
    batch_size: BatchSize = 64,
    device: Device = "auto",
    method: OwnMethod = None,
    cross: Cross = False,
    open_set: Annotated[
        bool, typer.Option("--open-set", help="Also rank 1 at false-alarm rates of 1 % and 10 % (open_set.json).")
    ] = False,
    pictures: Annotated[int, typer.Option(min=0, help="Queries in the picture of ranked lists; 0: none.")] = 8,
    lang: Annotated[Lang, typer.Option(help="Language of the picture.")] = "en",
    quiet: Quiet = False,
) -> None:
    """Evaluate a run; writes results.json, table.md and pictures of ranked lists into it."""
    from vireid.evaluation.rerank import KReciprocal
    from vireid.workflows.evaluation import evaluate_run

    shared = {"batch_size": batch_size, "device": device, "method": method, "cross": cross, "progress": not quiet}
    results = evaluate_run(
        run,
        protocol or (),
        data,
        trial=trial,
        draw=draw,
        layer=layer,
        flip=flip,
        refine=refine,
        strict=strict,
        rerank=KReciprocal(k1, k2) if rerank else None,
        similarity=similarity,
        ignore=ignore or (),
        open_set=open_set,
        pictures=pictures,
        lang=lang,
        say=note,
        **shared,
    )
    show(results, form)


@app.command()
def export(
    run: RunFolder,
    to: Annotated[Path | None, typer.Option(help="Folder of the bundle; RUN/bundle by default.")] = None,
    onnx: Annotated[bool, typer.Option("--onnx/--no-onnx", help="Write embedder.onnx and compare it.")] = True,
    openvino: Annotated[bool, typer.Option("--openvino", help="Write the file for OpenVINO too.")] = False,
    method: OwnMethod = None,
) -> None:
    """Write a bundle: the embedder as a folder that serves without its method."""
    from vireid.workflows.export import export_run

    bundle = export_run(run, to, onnx=onnx, openvino=openvino, method=method)
    print(f"wrote {bundle.path}")


@app.command()
def calibrate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, or a bundle together with --data.")],
    data: OtherData = None,
    split: Annotated[
        str | None, typer.Option(help="Held-out people by default, else val where it was not trained on, else test.")
    ] = None,
    trial: Trial = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Manifest: column whose equal value is ignored.")] = None,
    batch_size: BatchSize = 64,
    device: Device = "auto",
    method: OwnMethod = None,
    cross: Cross = False,
    quiet: Quiet = False,
) -> None:
    """Measure from what similarity on two pictures show one person; writes calibration.json into RUN and its bundle."""
    from vireid.workflows.calibrate import calibrate_run

    shared = {"batch_size": batch_size, "device": device, "method": method, "cross": cross, "progress": not quiet}
    made = calibrate_run(run, data, split=split, trial=trial, ignore=ignore or (), **shared)
    print(made.markdown())


@app.command()
def compare(
    data: Annotated[list[str], typer.Option(help=DATA_HELP + " Repeatable.")],
    words: Annotated[
        list[str] | None, typer.Argument(metavar="[METHOD]... [KEY=VALUE]...", help="Methods, and settings of all.")
    ] = None,
    plan: Annotated[Path | None, typer.Option(help="YAML: methods, their settings, seeds, protocols.")] = None,
    seeds: Annotated[int | None, typer.Option(min=1, help="Trainings of each method; 3 by default.")] = None,
    protocol: Annotated[list[str] | None, typer.Option(help="By name, repeatable; the data's usual ones.")] = None,
    run: Annotated[Path, typer.Option(help="Folder of the comparison; goes on where it was stopped.")] = Path(
        "runs/compare"
    ),
    jobs: Annotated[int, typer.Option(min=1, help="Trainings at a time; they share the cores.")] = 1,
    trial: Trial = None,
    device: Device = "auto",
    form: OutForm = "table",
) -> None:
    """Train methods from several seeds, evaluate all and rank them: vireid compare agw cajl --data sysu=PATH."""
    from vireid.workflows.compare import Plan, compare_runs

    names = [word for word in words or () if "=" not in word]
    if plan is None and not names:
        raise ArgumentError("name the methods to compare, or a file with --plan; `vireid methods` lists them")
    chosen = (Plan.read(plan) if plan else Plan(methods={})).only(names)
    changes = {"seeds": seeds, "protocols": tuple(protocol) if protocol else None}
    chosen = chosen.model_copy(update={key: value for key, value in changes.items() if value is not None})
    settings = [word for word in words or () if "=" in word]
    show(compare_runs(chosen, data, run, settings=settings, jobs=jobs, device=device, trial=trial, say=note), form)


@app.command()
def results(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="Run folders that were evaluated.")],
    form: OutForm = "table",
) -> None:
    """Print the results of several runs side by side; RegDB's splits are averaged."""
    from vireid.workflows.evaluation import results_of

    show(results_of(runs), form)


def show(results: Any, form: Form) -> None:
    """Print results on stdout."""
    if form == "table":
        from rich.console import Console

        console = Console()
        if not console.is_terminal:
            print(results.markdown())
            return
        table = results.__rich__()
        for column in table.columns:  # where the window is narrow, figures are folded and names stay whole
            column.overflow, column.no_wrap = "fold", column.header in ("name", "protocol")
        console.print(table)
        return
    from vireid.workflows.evaluation import formatted

    print(formatted(results, form))


@app.command()
def methods(
    name: Annotated[
        str | None, typer.Argument(help="Show the settings of this one (a name or ./your_file.py).")
    ] = None,
    dataset: Annotated[str, typer.Option(help="The data set whose recipe is shown.")] = "sysu",
) -> None:
    """List the methods, or the settings of one with types and defaults."""
    from vireid.workflows import methods as listing

    if name is None:
        found = listing.summaries()
        for method, summary in found.items():
            print(f"{method:<{max(map(len, found))}}  {summary}")
        return
    rows = listing.settings(name, dataset)
    widths = [max(len(row[key]) for row in rows) for key in ("name", "default")]
    for part, title in ((False, "network and losses"), (True, f"recipe ({dataset})")):
        print(f"{title}:")
        for row in rows:
            if row["recipe"] is part:
                print(f"  {row['name']:<{widths[0]}}  {row['default']:<{widths[1]}}  {row['type']}")


@app.command()
def doctor() -> None:
    """Print what this machine has for vireid, and what is missing with the line that installs it."""
    from vireid.workflows.doctor import examine

    report = examine()
    print("\n".join(report.lines()))
    raise typer.Exit(0 if report.ok else 1)


@app.command()
def demo(
    root: Annotated[Path, typer.Option(help="Folder for the demo's data and runs.")] = Path("runs/demo"),
    quiet: Quiet = False,
) -> None:
    """Make data, train a small AGW and a small CAJL, evaluate both and show them side by side: a few minutes."""
    from vireid.workflows.demo import run_demo

    show(run_demo(root, progress=not quiet, say=note), "table")


search_verbs.add_to(app)


def main() -> None:
    """The entry point of the `vireid` program."""
    app(prog_name="vireid")


if __name__ == "__main__":
    main()
