"""The command line in tests: small data, a tiny network, a call and the message of a call that failed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from typer.testing import CliRunner, Result

from vireid.cli.app import app

TINY = ("width=4", "blocks=[1,1,1,1]", "size=[64,32]", "epochs=1", "sampler.pids=2", "sampler.images=2")


def write_manifest(folder: Path, people: int = 6, seed: int = 0) -> Path:
    """Random pictures of `people`, each two per modality; the first half is trained on."""
    random = np.random.RandomState(seed)
    lines = ["path,pid,camid,modality,split,frame"]
    for pid in range(people):
        for modality in ("visible", "infrared"):
            for image in range(2):
                name = f"{pid}_{modality}_{image}.jpg"
                pixels = random.randint(0, 60, (64, 32, 3)) + random.randint(0, 190, (1, 1, 3))
                Image.fromarray(pixels.astype(np.uint8)).save(folder / name)
                split = "train" if pid < people // 2 else "test"
                lines.append(f"{name},{pid},{1 if modality == 'visible' else 2},{modality},{split},{image}")
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder / "manifest.csv"


def call(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def error_of(result: Result, code: int) -> str:
    """The message of a command that failed with this exit code, that of its error's class, and without a traceback.

    2 is a command that was called wrongly, 1 is every other VireidError (vireid/errors.py).
    """
    assert result.exit_code == code, (result.exit_code, result.output, result.exception)
    assert isinstance(result.exception, SystemExit), result.exception
    return result.stderr
