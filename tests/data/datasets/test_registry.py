"""Data sets are found by the name of their file, in the package or outside it; nothing else lists them."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import vireid
from vireid.data import datasets
from vireid.data.check import check
from vireid.data.dataset import Dataset
from vireid.errors import ArgumentError, DataError, OwnFileError
from vireid.methods import find
from vireid.synthetic.make import make

OWN = '''"""Two cameras of a corridor: the first letter of a picture's name says the sensor."""
import neighbor_of_{name}
from pathlib import Path

from vireid.data.dataset import Dataset, Fault
from vireid.data.protocol import Protocol
from vireid.data.table import table_from_columns

import numpy as np


def trials(table):
    return [(np.flatnonzero(table.modality == 1), np.flatnonzero(table.modality == 0))]


class Corridor(Dataset):
    title = "The corridor"
    protocols = {{"{name}/infrared-to-visible": Protocol("{name}/infrared-to-visible", trials)}}

    def load(self, root, lens=1):
        names = sorted(path.name for path in Path(root).glob("*.png"))
        columns = {{
            "path": names,
            "pid": [neighbor_of_{name}.pid(name) for name in names],
            "camid": [lens] * len(names),
            "modality": ["vi".index(name[0]) for name in names],
            "split": ["test"] * len(names),
        }}
        return table_from_columns(root, columns, "anything")

    def check(self, table, synthetic):
        return [Fault("warning", "the door is open", "close it")]
'''


def own(folder: Path, name: str, text: str = OWN) -> Path:
    (folder / f"neighbor_of_{name}.py").write_text("def pid(name):\n    return int(name[1:4])\n")
    (folder / f"{name}.py").write_text(text.format(name=name))
    for picture in ("v001.png", "i001.png", "v002.png", "i002.png"):
        (folder / picture).touch()
    return folder / f"{name}.py"


def test_every_file_is_a_data_set_that_says_what_it_needs():
    assert datasets.names() == ["llcm", "manifest", "market1501", "regdb", "sysu"]
    for name in datasets.names():
        dataset = datasets.find(name)
        assert dataset.name == name and dataset.file is None and dataset.layout and dataset.protocols
        assert all(key.startswith(f"{name}/") and key == p.name for key, p in dataset.protocols.items())
        assert not dataset.selection_protocol or dataset.selection_protocol in dataset.protocols
        assert set(dataset.compared_protocols) <= set(dataset.protocols)


def test_no_other_module_lists_the_names():
    """What a published method changes on one data set stands in the file of the method; the renderer has layouts."""
    package = Path(vireid.__file__).parent
    allowed = re.compile(r"data/datasets/(sysu|regdb|llcm|manifest)\.py|methods/\w+\.py|synthetic/\w+\.py")
    registered = re.compile(r"""["'](regdb|llcm)["']""")
    files = {path.relative_to(package).as_posix(): path.read_text(encoding="utf-8") for path in package.rglob("*.py")}
    found = [name for name, text in files.items() if registered.search(text) and not allowed.fullmatch(name)]
    assert found == []


@pytest.mark.parametrize("name", ["sysu", "regdb", "llcm"])
def test_a_made_set_is_recognized(tmp_path, name):
    assert datasets.detect(make(tmp_path / name, name, people=4, images_per_camera=1, size=(32, 16), workers=1)) == name


def test_a_folder_with_two_layouts_is_refused_and_a_manifest_in_it_decides(tmp_path):
    for folder in ("cam1", "vis", "nir"):
        (tmp_path / folder).mkdir()
    with pytest.raises(DataError, match=r"may be llcm or sysu; say which: llcm="):
        datasets.detect(tmp_path)
    (tmp_path / "manifest.csv").touch()
    assert datasets.detect(tmp_path) == "manifest"


def test_a_data_set_of_ones_own_is_loaded_from_its_file(tmp_path, monkeypatch):
    file = own(tmp_path, "corridor_a")
    monkeypatch.chdir(tmp_path)
    table = vireid.load(f"./corridor_a.py={tmp_path}")
    assert table.dataset == "corridor_a" and table.pid.tolist() == [1, 2, 1, 2] and table.camid.tolist() == [1] * 4
    assert datasets.split_spec(f"./corridor_a.py={tmp_path}") == (str(file), tmp_path)
    assert vireid.load(f"{file}={tmp_path}", lens=3).camid.tolist() == [3] * 4
    with pytest.raises(ArgumentError, match=r"corridor_a has no option `lense` \(did you mean 'lens'\?\)"):
        vireid.load(f"{file}={tmp_path}", lense=3)
    assert list(vireid.protocols_for(table)) == ["corridor_a/infrared-to-visible"]
    ((query, gallery),) = vireid.protocol("corridor_a/infrared-to-visible", table).trials(table)
    np.testing.assert_array_equal(table.path[query], ["i001.png", "i002.png"])
    np.testing.assert_array_equal(table.path[gallery], ["v001.png", "v002.png"])
    report = check(f"{file}={tmp_path}", pictures=False)
    assert report.title == "The corridor" and report.release == "your own"
    assert [fault.what for fault in report.faults] == ["the door is open"]


def test_a_name_means_one_data_set(tmp_path):
    (tmp_path / "other").mkdir()
    datasets.find(str(own(tmp_path, "corridor_b")))
    with pytest.raises(ArgumentError, match=r"the data set corridor_b is that of .*; give the file another name"):
        datasets.find(str(own(tmp_path / "other", "corridor_b")))
    with pytest.raises(ArgumentError, match="the data set sysu is one of vireid's already"):
        datasets.find(str(own(tmp_path, "sysu")))
    with pytest.raises(ArgumentError, match=r"no data set is called 'corridor_z'.*your own file"):
        datasets.find("corridor_z")


def test_a_fault_in_the_file_shows_file_and_line_first(tmp_path):
    file = own(tmp_path, "corridor_c", OWN.replace("int(name[1:4])", "int(name)") + "\nimport nothing_of_this_name\n")
    line = len(file.read_text().splitlines())
    with pytest.raises(OwnFileError, match=f"^{re.escape(str(file))}, line {line}: ModuleNotFoundError: No module"):
        vireid.load(f"{file}={tmp_path}")
    file = own(tmp_path, "corridor_d", "class Corridor(\n")
    with pytest.raises(OwnFileError, match=f"^{re.escape(str(file))}, line 1: SyntaxError"):
        vireid.load(f"{file}={tmp_path}")
    file = own(tmp_path, "corridor_e")
    (tmp_path / "v00x.png").touch()
    neighbor = re.escape(str(tmp_path / "neighbor_of_corridor_e.py"))
    with pytest.raises(OwnFileError, match=f"^{neighbor}, line 2: ValueError: invalid literal"):
        vireid.load(f"{file}={tmp_path}")
    file = own(tmp_path, "corridor_f", "from vireid.data.dataset import Dataset\n")
    with pytest.raises(ArgumentError, match=r"corridor_f.py must define exactly one subclass of Dataset .*has none"):
        vireid.load(f"{file}={tmp_path}")


def test_a_method_of_ones_own_imports_its_neighbor(tmp_path):
    (tmp_path / "neighbor_of_a_method.py").write_text("WORD = 'beside'\n")
    text = (
        "from neighbor_of_a_method import WORD\nfrom vireid.methods.agw import AGW\nclass Own(AGW):\n    word = WORD\n"
    )
    (tmp_path / "own_method.py").write_text(text)
    assert vars(find(tmp_path / "own_method.py"))["word"] == "beside"


def test_names_are_listed_without_numpy():
    code = "import sys; from vireid.data.datasets import names; assert names(); assert 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_data_set_without_protocols_of_the_user_takes_no_ignore_rule(tmp_path):
    assert issubclass(type(datasets.find("regdb")), Dataset)
    with pytest.raises(ArgumentError, match="those of regdb are fixed"):
        datasets.find("regdb").protocol("regdb/visible-to-infrared", None, ["frame"])  # pyright: ignore
    with pytest.raises(ArgumentError, match="--draw belongs to SYSU-MM01, this data is regdb"):
        datasets.find("regdb").drawn([], "agw")
