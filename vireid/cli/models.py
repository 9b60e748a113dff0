"""The verbs of models: adapt, export, calibrate."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from vireid.cli.from_settings import takes
from vireid.cli.options import Model, OwnMethod, RunFolder, To, run_or_model
from vireid.models import names
from vireid.workflows.options import AdaptOptions, RunOptions


@takes(AdaptOptions)
def adapt(
    model: Annotated[
        str,
        typer.Argument(help=f"A model that comes with vireid ({', '.join(names())}), a run folder or a bundle."),
    ],
    pictures: Annotated[list[Path], typer.Argument(metavar="CROPS", help="Folders of crops, or CSVs that list them.")],
    run: Annotated[Path | None, typer.Option(help="Folder to write; runs/adapted/DATE-TIME by default.")] = None,
    *,
    options: AdaptOptions,
) -> None:
    """Fine-tune a model on unlabeled crops from your own cameras: vireid adapt night CROPS --run runs/mine."""
    from vireid.workflows.adapt import adapt as run_adapt

    made = run_adapt(model, pictures, run, options)
    print(f"wrote {made.path}")
    print(f"next: vireid index PICTURES --gallery PATH --model {made.path}")


def export(
    run: RunFolder,
    to: Annotated[Path | None, typer.Option(help="Folder of the bundle; RUN/bundle by default.")] = None,
    onnx: Annotated[
        bool,
        typer.Option(
            "--onnx/--no-onnx",
            help="Write embedder.onnx and compare its runtimes.",
        ),
    ] = True,
    method: OwnMethod = None,
    fiftyone: Annotated[
        Path | None,
        typer.Option(help="Write a FiftyOne dataset there instead: test pictures with labels, vectors, figures."),
    ] = None,
) -> None:
    """Write a bundle: the embedder as a folder that serves without its method, and that the Hugging Face Hub reads."""
    from vireid.workflows.run import Run

    if fiftyone is not None:
        from vireid.workflows.fiftyone import export_fiftyone

        print(f"wrote {export_fiftyone(run, fiftyone, method=method)}")
        return
    bundle = Run.open(run).export(to, onnx=onnx, method=method)
    print(f"wrote {bundle.path}")


@takes(RunOptions, skip=("flip",))
def calibrate(
    run: Annotated[
        Path | None, typer.Argument(metavar="RUN", help="A run folder, or a bundle together with --data.")
    ] = None,
    model: Model = None,
    to: To = None,
    split: Annotated[
        str | None,
        typer.Option(help="Split to calibrate on; by default the people held out, else val, else test."),
    ] = None,
    ignore: Annotated[list[str] | None, typer.Option(help="Manifest: column whose equal value is ignored.")] = None,
    *,
    options: RunOptions,
) -> None:
    """Measure above which similarity two pictures show one person; writes calibration.json into RUN and its bundle.

    Without RUN a copy of --model is calibrated on --data.
    """
    from vireid.workflows.calibrate import calibrate_run
    from vireid.workflows.model_use import calibrate_with

    run, name = run_or_model(run, model, to)
    more = {"split": split, "ignore": ignore or ()}
    made = calibrate_with(name, options, to, **more) if run is None else calibrate_run(run, options, **more)
    print(made.markdown())


def add_to(app: typer.Typer) -> None:
    """Make these functions sub-commands."""
    for verb in (adapt, export, calibrate):
        app.command(verb.__name__, rich_help_panel="Models")(verb)
