"""One line about the machine and the day, for the head of a result."""

from __future__ import annotations

import datetime
import os
import platform
from pathlib import Path

import numpy as np
import torch


def describe() -> str:
    """Date, processor, cores and threads, versions, and how busy the machine was."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []  # Linux alone
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{datetime.date.today()}, {models[0] if models else platform.processor()}, {os.cpu_count()} cores, "
        f"{torch.get_num_threads()} threads, torch {torch.__version__}, numpy {np.__version__}{load}"
    )


if __name__ == "__main__":
    print(describe())
