"""A run on a data set of one's own: its file is remembered with its hash, found again and asked for when it is gone."""

import hashlib
import json
from pathlib import Path

from command_line import TINY, call, error_of, write_manifest

FILE = """
from dataclasses import replace

from vireid.data.dataset import Dataset
from vireid.data.datasets import manifest


def named(protocol):
    return replace(protocol, name=protocol.name.replace("manifest", "our_corridor"))


class OurCorridor(Dataset):
    protocols = {p.name: p for p in map(named, manifest.protocols_with().values())}

    def load(self, root):
        return manifest.load(root)
"""


def test_train_evaluate_and_a_file_that_changed_and_went(tmp_path: Path, caplog) -> None:
    (tmp_path / "data").mkdir()
    write_manifest(tmp_path / "data")
    file, run = tmp_path / "our_corridor.py", tmp_path / "run"
    file.write_text(FILE)
    result = call("train", "agw", "--data", f"{file}={tmp_path / 'data'}", "--run", run, "--device", "cpu", *TINY)
    assert result.exit_code == 0, result.output
    about = json.loads((run / "recipe.json").read_text())
    assert about["dataset"] == "our_corridor"
    assert about["source"]["data"] == f"{file}={tmp_path / 'data'}"
    assert about["source"]["sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()

    words = ["evaluate", run, "--pictures", 0, "--quiet", "--format", "csv"]
    result = call(*words)
    assert result.exit_code == 0 and result.stdout.count("our_corridor/") >= 3, result.output
    assert "has changed" not in caplog.text
    file.write_text(FILE + "# a note\n")
    assert call(*words).exit_code == 0 and f"{file} has changed since the training" in caplog.text
    (tmp_path / "moved").mkdir()
    file.rename(tmp_path / "moved" / file.name)
    message = error_of(call(*words), 1)
    assert f"loaded by {file}, which is not there; pass --data ./our_corridor.py=PATH" in message
