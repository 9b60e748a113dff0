"""An error in a method or data set of the user: the command line shows its file and line, and no frame of its own."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import TINY, call, error_of, write_manifest

from vireid import own_files
from vireid.own_files import LIBRARIES, own_error

METHOD = """from vireid.methods.agw import AGW


class Mine(AGW):
    def losses(self, batch, at):
        return super().losses(batch, at)
"""
DATASET = """from vireid.data.dataset import Dataset
from vireid.data.datasets import manifest


class Ours(Dataset):
    protocols = dict(manifest.protocols_with())

    def load(self, root):
        return manifest.load(root)
"""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("own")
    write_manifest(folder)
    return folder


def shown(*words: object) -> str:
    """The error as the command line prints it, the last line; nothing else of a traceback is printed."""
    message = error_of(call(*words), 1)
    assert not re.search("Traceback|typer|click", message)
    return message.splitlines()[-1]


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("AGW):", "AGW)", 4, "SyntaxError: expected ':': class Mine(AGW)"),
        ("\n\n\nclass", "\n\nAGW.none\nclass", 3, "AttributeError: type object 'AGW' has no attribute 'none'"),
        ("super().losses", "super().lossess", 6, "AttributeError: 'super' object has no attribute 'lossess'"),
        ("batch, at)\n", "batch.images @ 1, at)\n", 6, "TypeError: unsupported operand type(s) for @"),
    ],
)
def test_a_method(data: Path, tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    file = tmp_path / "mine.py"
    head, _, rest = METHOD.rpartition(old)
    file.write_text(head + new + rest)
    words = ("train", file, "--data", data, "--run", tmp_path / "run", "--device", "cpu", "--quiet", *TINY)
    assert shown(*words).startswith(f"error: {file}, line {line}: {message}")


@pytest.mark.parametrize(
    ("old", "new", "line", "message"),
    [
        ("Dataset):", "Dataset)", 5, "SyntaxError: expected ':': class Ours(Dataset)"),
        ("manifest.protocols", "manifest.protocol", 6, "AttributeError: module 'vireid.data.datasets.manifest' has no"),
        ("manifest.load(root)", "manifest.load(int(root.name))", 9, "ValueError: invalid literal for int()"),
    ],
)
def test_a_data_set(data: Path, tmp_path: Path, old: str, new: str, line: int, message: str) -> None:
    file = tmp_path / f"ours_{line}.py"
    file.write_text(DATASET.replace(old, new))
    words = ("train", "agw", "--data", f"{file}={data}", "--run", tmp_path / "run", "--device", "cpu", *TINY)
    assert shown(*words).startswith(f"error: {file}, line {line}: {message}")
    assert not (tmp_path / "run").exists()


def test_the_program_prints_one_line(data: Path, tmp_path: Path) -> None:
    (tmp_path / "ours.py").write_text(DATASET.replace("manifest.load(root)", "manifest.loaded(root)"))
    command = [sys.executable, "-m", "vireid", "data", "check", f"./ours.py={data}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    place = f"error: {tmp_path.resolve() / 'ours.py'}, line 9: AttributeError: module "
    assert done.returncode == 1 and done.stdout == "" and done.stderr.startswith(place) and done.stderr.count("\n") == 1


def test_debug_shows_the_traceback(data: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(METHOD.replace("super()", "self.nothing"))
    words = ("train", tmp_path / "mine.py", "--data", data, "--run", tmp_path / "run", "--device", "cpu", *TINY)
    assert shown(*words).endswith("has no attribute 'nothing' (--debug shows the traceback)")
    assert isinstance(call(*words, "--resume", "--debug").exception, AttributeError)


def test_the_line_is_the_users_where_an_environment_lies_beside_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = tmp_path / "env/lib/library.py"
    library.parent.mkdir(parents=True)
    library.write_text("def fail():\n    raise ValueError('of the library')\n")
    monkeypatch.syspath_prepend(library.parent)
    monkeypatch.setattr(own_files, "LIBRARIES", (*LIBRARIES, library.parent))
    file = tmp_path / "mine.py"
    file.write_text("import library\n\n\ndef run():\n    library.fail()\n")
    with pytest.raises(ValueError, match="of the library") as caught:
        own_files.import_file(file).run()
    assert own_error(caught.value) == f"{file}, line 5: ValueError: of the library"
    file.with_name("at_once.py").write_text("import library\nlibrary.fail()\n")
    with pytest.raises(own_files.OwnFileError, match=r"at_once.py, line 2: ValueError: of the library"):
        own_files.import_file(file.with_name("at_once.py"))
    with pytest.raises(ZeroDivisionError) as ours:
        _ = 1 / 0
    assert own_error(ours.value) is None
