"""`vireid export`: from a run folder to a bundle that serves without the method."""

from __future__ import annotations

from pathlib import Path

from vireid.deploy.bundle import Bundle, export_bundle
from vireid.training.record import Run
from vireid.workflows.evaluation import embedder_of

BUNDLE = "bundle"  # the folder inside a run


def export_run(
    run: Path | str,
    to: Path | str | None = None,
    *,
    onnx: bool = True,
    openvino: bool = False,
    method: str | None = None,
) -> Bundle:
    """Write the bundle of a run into `to`, by default RUN/bundle; `method` as in `embed_run`.

    Raises RunError, BundleError and what export_onnx raises.
    """
    opened = Run.open(run)
    own = None if method is None else embedder_of(opened, method)
    return export_bundle(opened, to or opened.path / BUNDLE, onnx=onnx, openvino=openvino, embedder=own)
