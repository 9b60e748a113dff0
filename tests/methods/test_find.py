"""Methods are found by name or file; errors say what to do; listing them does not import torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from vireid.errors import OwnFileError
from vireid.methods import find, names

FILE = '''"""Mine."""
from dataclasses import dataclass
from vireid.method import Method
from vireid.methods.agw import AGW

@dataclass(frozen=True)
class Extra:
    number: "int" = 1

class Mine(AGW):
    """Mine."""
'''


def test_names_are_the_files() -> None:
    assert {"agw", "cajl", "cajl_plus"} <= set(names())
    assert names() == sorted(names()) and not any(name.startswith("_") for name in names())


def test_found_by_name() -> None:
    assert find("agw").__name__ == "AGW" and find("cajl").__name__ == "CAJL"


def test_found_by_file_and_imported_once(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FILE)
    method = find(path)
    assert method.__name__ == "Mine" and find(str(path)) is method
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mine.py").write_text(FILE.replace("class Mine", "class Other"))
    assert find(tmp_path / "other" / "mine.py").__name__ == "Other"


@pytest.mark.parametrize(("name", "message"), [("agv", "did you mean agw?"), ("xyzzy", r"your own file \(./mine.py\)")])
def test_unknown_name(name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        find(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "exactly one subclass of Method.*it has none"),
        (FILE + "class Second(AGW):\n    pass\n", "it has Mine, Second"),
    ],
)
def test_file_without_exactly_one_method(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        find(path)


def test_missing_file_and_broken_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no Python file at"):
        find(tmp_path / "mine.py")
    path = tmp_path / "mine.py"
    path.write_text("one = 1\nraise KeyError('broken')")
    for _ in range(2):  # a failed import is not remembered as a module
        with pytest.raises(OwnFileError, match=r"mine.py, line 2: KeyError: 'broken'") as caught:
            find(path)
        assert str(caught.value).startswith(str(path))


def test_listing_imports_no_torch() -> None:
    code = "import sys; from vireid.methods import names; assert names(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
