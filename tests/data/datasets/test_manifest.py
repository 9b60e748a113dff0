"""Manifests and folder trees of one's own: what is read, what is refused and how, and the ignore rules."""

import os
import sys
from pathlib import Path

import numpy as np
import pytest

from vireid.data import datasets
from vireid.data.datasets import ignore, manifest
from vireid.errors import DataError

GOOD = """path,pid,camid,modality,split,frame,place
a.jpg,1,4,visible,train,10,gate
b.jpg,1,5,infrared,train,10,hall
c.jpg,2,4,RGB,test,20,gate
d.jpg,2,4,1,test,20,gate
e.jpg,2,5,thermal,test,21,
f.jpg,3,5,0,test,20,
"""


def write(folder: Path, text: str, name: str = "mine.csv") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_reads_columns_and_extras(tmp_path):
    table = datasets.load(f"manifest={write(tmp_path, GOOD)}")
    assert table.modality.tolist() == [0, 1, 0, 1, 1, 0]
    assert table.camid.tolist() == [4, 5, 4, 4, 5, 5]
    assert table.extras["frame"].dtype == np.int64 and table.extras["place"].tolist()[0] == "gate"
    assert table.root == tmp_path and table.dataset == "manifest"


@pytest.mark.parametrize("change", [("\ufeffpath", "path"), ("\r\n", "\n"), (";", ","), ("\t", ",")])
def test_spreadsheet_variants_read_alike(tmp_path, change):
    new, old = change
    text = new + GOOD.removeprefix(old) if new.startswith("\ufeff") else GOOD.replace(old, new)
    (tmp_path / "mine.csv").write_bytes(text.encode())
    other = manifest.load(tmp_path / "mine.csv")
    assert other.fingerprint == manifest.load(write(tmp_path, GOOD, "plain.csv")).fingerprint


def test_other_suffixes_of_tables_are_recognized(tmp_path):
    plain = datasets.load(write(tmp_path, GOOD))
    for name in ("mine.tsv", "mine.txt", "manifest.tsv"):
        path = write(tmp_path / name.partition(".")[2], GOOD.replace(",", "\t"), name)
        for spec in (path, f"manifest={path}", *([path.parent] if name.startswith("manifest") else [])):
            assert datasets.load(spec).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("cells", "kind", "equal"),
    [
        (("1", "1", "", "5"), "f", [(0, 1)]),
        (("1732482251123456789", "1732482251123456700", "", "5"), "U", []),  # 89 nanoseconds apart: one float64
        (("1732482251123456789", "1732482251123456700", "5", "5"), "i", [(2, 3)]),
        (("12345678901234567890", "12345678901234567891", "5", "5"), "U", [(2, 3)]),
        (("1", "nan", "NaN", "none"), "f", []),
        (("1732482251.1234567", "1732482251.12345671", "nan", ""), "U", []),
        (("1_0", "10", "10", ""), "U", [(1, 2)]),
        (("1.0", "1", "2", ""), "f", [(0, 1)]),
    ],
)
def test_a_column_tells_apart_what_its_texts_do(tmp_path, cells, kind, equal):
    rows = [f"{n}.jpg,{n // 2},{n % 2},test,{cell}" for n, cell in enumerate(cells)]
    table = manifest.load(write(tmp_path, "\n".join(["path,pid,modality,split,frame", *rows])))
    assert table.extras["frame"].dtype.kind == kind
    same = np.asarray(ignore.same("frame")(table, table))
    assert [(a, b) for a in range(4) for b in range(a + 1, 4) if same[a, b]] == equal


def test_camera_is_optional(tmp_path):
    table = manifest.load(write(tmp_path, "path,pid,modality,split\na.jpg,1,visible,test\nb.jpg,1,infrared,test\n"))
    assert table.camid.tolist() == [1, 2]


def test_training_pictures_may_all_be_visible(tmp_path):
    table = manifest.load(write(tmp_path, GOOD.replace("b.jpg,1,5,infrared", "b.jpg,1,5,visible")))
    assert table.where("train").modality.tolist() == [0, 0]


def test_blank_number_is_nan(tmp_path):
    text = "path,pid,modality,split,time\na.jpg,1,visible,test,1.5\nb.jpg,1,infrared,test,\n"
    time = manifest.load(write(tmp_path, text)).extras["time"]
    assert time[0] == 1.5 and np.isnan(time[1])


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("modality,", "modalty,", r"`modality` is missing \(is it `modalty`\? rename it\)"),
        ("path,pid", "path,PID", r"`pid` is missing \(is it `PID`\? rename it\)"),
        ("camid,", "cam_id,", "`cam_id` looks like `camid`"),
        ("frame,", "place,", "column `place` stands twice"),
        ("visible", "viisble", r"`modality` must be visible or infrared; not so in lines 2 \('viisble'\)"),
        (",test,", ",testing,", "`split` must be one of .* lines 4 .*5 .*6 .*7"),
        ("f.jpg,3", "f.jpg,x3", r"`pid` must be an integer in plain digits of at most 64 bits; .* lines 7 \('x3'\)"),
        ("f.jpg,3", "f.jpg,1_0", r"`pid` must be an integer .* lines 7 \('1_0'\)"),
        ("f.jpg,3,5", "f.jpg,3," + "9" * 20, "`camid` must be an integer .* lines 7"),
        ("b.jpg", "a.jpg", r"listed once; again in lines 3 \(a\.jpg, first in 2\)"),
        ("b.jpg", "./a.jpg", r"listed once; again in lines 3 \(\./a\.jpg, first in 2\)"),
        ("b.jpg", "x\\..\\a.jpg", "listed once; again in lines 3"),
        ("a.jpg", "", "`path` must be a path relative to the manifest; not so in lines 2"),
        ("a.jpg", "C:\\pics\\a.jpg", "`path` must be a path relative to the manifest; not so in lines 2"),
        ("a.jpg,1,4,visible", "a.jpg,1,4,infrared", "1 have infrared ones only: pid 1.*Add their visible"),
        ("c.jpg,2,4,RGB,test", "c.jpg,7,4,RGB,train", "1 have visible ones only: pid 7.*Add their infrared"),
        ("e.jpg,2,5,thermal,test,21,\n", "e.jpg,2,5\n", "line 6: expected 7 cells like the header, came 3"),
        ('gate\n', '"gate\n', "not a CSV"),
    ],
)  # fmt: skip
def test_refuses_bad_manifests(tmp_path, old, new, message):
    with pytest.raises(DataError, match=message):
        manifest.load(write(tmp_path, GOOD.replace(old, new)))


def test_all_faults_are_told_at_once(tmp_path):
    with pytest.raises(DataError) as caught:
        manifest.load(write(tmp_path, GOOD.replace("visible", "blue").replace("f.jpg,3", "f.jpg,three")))
    assert "'blue'" in str(caught.value) and "'three'" in str(caught.value)


def test_empty_missing_and_binary_files(tmp_path):
    with pytest.raises(DataError, match="came the header alone"):
        manifest.load(write(tmp_path, GOOD.splitlines()[0]))
    with pytest.raises(DataError, match="does not exist"):
        manifest.load(tmp_path / "none.csv")
    (tmp_path / "bin.csv").write_bytes(b"\xff\xd8\x00\x80")
    with pytest.raises(DataError, match="UTF-8"):
        manifest.load(tmp_path / "bin.csv")
    (tmp_path / "book.xlsx").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"of another kind than .*\.csv.*; save it as CSV"):
        manifest.load(tmp_path / "book.xlsx")


def test_parquet_without_pyarrow_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    monkeypatch.setitem(sys.modules, "pyarrow.parquet", None)
    (tmp_path / "mine.parquet").write_bytes(b"PAR1")
    with pytest.raises(DataError, match="pip install pyarrow"):
        manifest.load(tmp_path / "mine.parquet")


def test_parquet_equals_csv(tmp_path):
    parquet = pytest.importorskip("pyarrow.parquet")
    pyarrow_csv = pytest.importorskip("pyarrow.csv")
    table = manifest.load(write(tmp_path, GOOD))
    parquet.write_table(pyarrow_csv.read_csv(tmp_path / "mine.csv"), tmp_path / "mine.parquet")
    other = manifest.load(tmp_path / "mine.parquet")
    assert other.fingerprint == table.fingerprint and other.extras["frame"].dtype == np.int64


def grow(root: Path, names: list[str]) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_folder_tree(tmp_path):
    root = grow(tmp_path, [
        "train/visible/0007/c3_f12.jpg", "train/infrared/0007/c4_f12.jpg", "train/visible/0007/Thumbs.db",
        "query/infrared/9/x_c4_f99_b.png", "gallery/visible/9/x_c3_f101.jpg", "gallery/visible/10/0010_c1s1_f3.jpg",
    ])  # fmt: skip
    table = datasets.load(root)
    assert len(table) == 5 and set(table.pids) == {7, 9, 10}
    by_path = dict(zip(table.path.tolist(), table.camid.tolist(), strict=True))
    assert by_path["train/visible/0007/c3_f12.jpg"] == 3 and by_path["gallery/visible/10/0010_c1s1_f3.jpg"] == 1
    assert sorted(table.extras["frame"].tolist()) == [3, 12, 12, 99, 101]
    [(query, gallery)] = datasets.protocol("manifest/infrared-to-visible", table).trials(table)
    assert table.split[query].tolist() == ["query"] and set(table.split[gallery]) == {"gallery"}
    with pytest.raises(DataError, match="no query: the table has no visible picture in split `query`"):
        datasets.protocol("manifest/visible-to-infrared", table).trials(table)


def test_folders_of_a_tree_may_be_named_in_other_words(tmp_path):
    root = grow(
        tmp_path, ["Train/RGB/1/a.jpg", "Train/thermal/1/a.jpg", "TEST/Visible/2/a.jpg", ".trash/visible/3/a.jpg"]
    )
    table = datasets.load(root)
    assert table.path.tolist() == ["Train/RGB/1/a.jpg", "Train/thermal/1/a.jpg", "TEST/Visible/2/a.jpg"]
    assert table.split.tolist() == ["train", "train", "test"] and table.modality.tolist() == [0, 1, 0]


def test_folder_tree_refusals(tmp_path):
    root = grow(tmp_path / "a", ["test/visible/1/c1_a.jpg", "test/infrared/1/b.jpg"])
    with pytest.raises(DataError, match=r"the camera \(cNUMBER\) stands in some file names and not in 1 others"):
        manifest.load(root)
    for name in ("anna", "²", "５"):
        with pytest.raises(DataError, match=f"named by its number, came '{name}'"):
            manifest.load(grow(tmp_path / f"b{name}", [f"test/visible/{name}/a.jpg"]))
    with pytest.raises(DataError, match=r"came the folder 'Testing'.*did you mean 'test'"):
        manifest.load(
            grow(tmp_path / "d", ["train/visible/1/a.jpg", "train/infrared/1/a.jpg", "Testing/visible/2/a.jpg"])
        )
    with pytest.raises(DataError, match="lie in `visible` or `infrared`, came 'night'"):
        manifest.load(grow(tmp_path / "e", ["test/visible/1/a.jpg", "test/night/1/a.jpg"]))
    with pytest.raises(DataError, match="are one split"):
        manifest.load(grow(tmp_path / "f", ["test/visible/1/a.jpg", "Test/infrared/1/a.jpg"]))
    with pytest.raises(DataError, match="`pid` is an integer of at most 64 bits"):
        manifest.load(grow(tmp_path / "g", [f"test/visible/{'9' * 20}/a.jpg"]))
    (tmp_path / "c" / "test" / "visible").mkdir(parents=True)
    with pytest.raises(DataError, match=r"no manifest\.csv"):
        manifest.load(tmp_path / "c")


def ignored(table, name, **options):
    protocol = datasets.protocol(name, table, **options)
    [(query, gallery)] = protocol.trials(table)
    mask = protocol.ignore(table[query], table[gallery])
    if mask is None:
        return None
    for q in range(len(query)):  # a block of queries gives the same rows
        np.testing.assert_array_equal(protocol.ignore(table[query[q : q + 1]], table[gallery])[0], mask[q])  # pyright: ignore
    return {(table.path[query[q]][0], table.path[gallery[g]][0]) for q, g in zip(*np.nonzero(mask), strict=True)}


def test_ignore_rules(tmp_path):
    table = manifest.load(write(tmp_path, GOOD))  # test: visible c f, infrared d e
    name = "manifest/infrared-to-visible"
    assert ignored(table, name) is None
    assert ignored(table, name, ignore="none") is None
    assert ignored(table, name, ignore="frame") == {("d", "c"), ("d", "f")}
    assert ignored(table, name + "/ignore-frame") == {("d", "c"), ("d", "f")}
    assert ignored(table, name, ignore=["same-pid-and-camera"]) == {("d", "c")}
    assert ignored(table, name, ignore=["place"]) == {("d", "c")}  # blanks of e and f are not the same place
    both = datasets.protocol(name, table, ignore=["same:place", "frame"])
    assert both.name == name + "/ignore-place+frame" and both.stamp["ignored"] == "same place, same frame"
    assert ignored(table, both.name) == {("d", "c"), ("d", "f")}


def test_mixed_never_finds_itself(tmp_path):
    table = manifest.load(write(tmp_path, GOOD))
    assert ignored(table, "manifest/mixed") == {(x, x) for x in "cdef"}
    with_frame = ignored(table, "manifest/mixed", ignore="frame")
    assert with_frame == {(a, b) for a in "cdf" for b in "cdf"} | {("e", "e")}


def test_protocol_names_are_checked(tmp_path):
    table = manifest.load(write(tmp_path, GOOD))
    assert list(datasets.protocols_for(table)) == [
        f"manifest/{d}" for d in ("visible-to-infrared", "infrared-to-visible", "mixed")
    ]
    with pytest.raises(ValueError, match="did you mean 'manifest/visible-to-infrared'"):
        datasets.protocol("manifest/visible-to-infared", table)
    with pytest.raises(DataError, match="did you mean 'frame'"):
        datasets.protocol("manifest/visible-to-infrared", table, ignore="frames")
    with pytest.raises(ValueError, match="stands alone"):
        datasets.protocol("manifest/visible-to-infrared", table, ignore=["none", "frame"])


def test_only_one_of_query_and_gallery(tmp_path):
    table = manifest.load(write(tmp_path, GOOD.replace("test", "query")))
    with pytest.raises(DataError, match="query split and no gallery split"):
        datasets.protocol("manifest/visible-to-infrared", table).trials(table)


def test_spec_and_detection(tmp_path):
    path = write(tmp_path, GOOD)
    assert datasets.load(str(path)).fingerprint == datasets.load(f"manifest={path}").fingerprint
    with pytest.raises(ValueError, match="did you mean 'manifest'"):
        datasets.load(f"manifst={path}")
    with pytest.raises(ValueError, match="has no option `trail`"):
        datasets.load(f"regdb={tmp_path}", trail=1)
    with pytest.raises(ValueError, match="a path must follow"):
        datasets.load("sysu=")
    with pytest.raises(DataError, match=r"none of the known layouts:(.|\n)*llcm(.|\n)*manifest(.|\n)*regdb(.|\n)*sysu"):
        datasets.detect(tmp_path)
    with pytest.raises(DataError, match="does not exist"):
        datasets.load(tmp_path / "nothing")
    odd = tmp_path / "run=1"
    odd.mkdir()
    assert datasets.load(str(write(odd, GOOD))).root == odd  # an equals sign inside an existing path is no spec


def test_a_tree_with_a_name_that_is_no_text_names_it(tmp_path: Path) -> None:
    folder = tmp_path / "test/visible/1"
    folder.mkdir(parents=True)
    Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.png")).touch()
    with pytest.raises(DataError, match=r"1: names that are not valid UTF-8: caf\\udce9.png; rename these files"):
        datasets.load(f"manifest={tmp_path}")
