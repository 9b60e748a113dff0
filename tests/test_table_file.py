"""Tables as people have them: delimiters, encodings, line ends, and cells that are nearly numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from vireid.errors import DataError
from vireid.table_file import ListedFiles, file_path, headless, integer, number, read_table

PLAIN = "path,pid\na.png,1\nb.png,2\n"


def table(path: Path) -> tuple[list[str], list[tuple[int, list[str]]]]:
    read = read_table(path, DataError)
    return read.header, list(read.lines())


@pytest.mark.parametrize(
    "data",
    [
        PLAIN.encode(),
        PLAIN.encode("utf-8-sig"),
        PLAIN.encode("utf-16"),  # Excel's "Unicode text"
        PLAIN.replace(",", ";").encode(),
        PLAIN.replace(",", "\t").encode("utf-16"),
        PLAIN.replace("\n", "\r\n").encode(),
        PLAIN.replace("\n", "\r").encode(),
        PLAIN.replace(",", " , ").encode(),
        PLAIN.replace("\n", ",,\n").encode(),  # spreadsheets write the columns that were once in use
        PLAIN.replace("1\n", "1, ,\n").encode(),
        b"\xef\xbb\xbf" + PLAIN.encode("utf-8-sig"),  # two files in one
        PLAIN.replace(",", "\u200b,").encode(),
    ],
)
def test_what_programs_write_reads_alike(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    assert table(tmp_path / "a.csv") == (["path", "pid"], [(2, ["a.png", "1"]), (3, ["b.png", "2"])])


def test_the_first_line_of_excel_names_the_delimiter(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("sep=;\npath;pid,x\na;1\n")
    assert table(tmp_path / "a.csv") == (["path", "pid,x"], [(3, ["a", "1"])])


def test_lines_are_counted_as_an_editor_does(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('path,tag\n"two\nlines",x\n\nb,"y;z"\n')
    assert table(tmp_path / "a.csv")[1] == [(2, ["two\nlines", "x"]), (5, ["b", "y;z"])]
    (tmp_path / "b.txt").write_text("# made by hand\n1 ; 2\n#\n3;4\n")
    assert list(headless(tmp_path / "b.txt", DataError)) == [(2, ["1", "2"]), (4, ["3", "4"])]


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"", "is empty"),
        (b"\n\n", "is empty"),
        ("path\nб".encode("cp1251"), "line 2: this is not text in UTF-8"),
        (b"p\0a\0t\0h\0", "holds NUL characters"),
        (b"a,b\n1,2\n3\n", "line 3: expected 2 cells like the header, came 1"),
        (b"a,b\n1,2,3\n", "line 2: expected 2 cells like the header, came 3"),
        (b'a,b\n1,"2\n', "line 2: not a CSV"),
        (b"a,b,a\n1,2,3\n", r"line 1 \(`a`, `b`, `a`\): column `a` stands twice"),
        (b"Export of May\n\na,b\n1,2\n", r"line 1 \(`Export of May`\) is not a header; expected names with commas"),
        (b"a|b\n1|2\n", r"line 1 \(`a\|b`\) is not a header"),
        (b"title\na,b\n", r"line 2: expected 1 cells .* line 1 \(`title`\) is taken for the header"),
        (b"PK\x03\x04\x14\0", "is a workbook of Excel, or another ZIP archive, expected a table of text; save it"),
        (b'[{"a": 1}]', "is JSON, expected a table of text"),
        (b"<!DOCTYPE html>", "is HTML or XML, expected"),
        ("a,b\n1,2\n".encode("utf-16")[:-1], "this is not text in UTF-16"),
    ],
)
def test_other_files_are_named_with_the_line(tmp_path: Path, data: bytes, told: str) -> None:
    (tmp_path / "a.csv").write_bytes(data)
    with pytest.raises(DataError, match=told) as caught:
        table(tmp_path / "a.csv")
    assert "a.csv" in str(caught.value)


def test_an_error_of_excel_is_no_comment(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("# made by hand\nframe,left\n#N/A,3\n# 1,2\n")
    assert list(read_table(tmp_path / "a.csv", DataError, comments=True).lines()) == [(3, ["#N/A", "3"])]


def test_spaces_may_stand_between_numbers_without_a_header(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("1  2 3\n\n4 5  6 \n")
    assert [cells[:3] for _, cells in headless(tmp_path / "a.txt", DataError)] == [["1", "2", "3"], ["4", "5", "6"]]


@pytest.mark.parametrize("text", ["1_0", "+5", "1e3", "5.0", "²", "５", "", "0x1", "nan", " 5", "9" * 20, "true"])
def test_an_integer_is_written_in_plain_digits(text: str) -> None:
    with pytest.raises(ValueError, match="expected a whole number"):
        integer(text)


def test_an_integer_has_64_bits() -> None:
    assert integer("9223372036854775807") == 2**63 - 1 and integer("-9223372036854775808") == -(2**63)


@pytest.mark.parametrize("text", ["1_0", "nan", "inf", "Infinity", "1e999", "１.5", "1,5", "", "."])
def test_a_number_is_finite_and_written_in_plain_digits(text: str) -> None:
    with pytest.raises(ValueError, match="expected a number"):
        number(text)


@pytest.mark.parametrize("text", ["https://cameras.example/a.png", "file:///data/a.png", "s3://bucket/a.png"])
def test_an_address_is_no_path(text: str) -> None:
    with pytest.raises(ValueError, match=f"got the address '{text}'; copy the file to this machine"):
        file_path(text)


def test_paths_have_forward_slashes_and_no_drive() -> None:
    assert file_path("gate\\a.png") == "gate/a.png"
    for text in ("", "C:\\pics\\a.png", "\\\\server\\share\\a.png"):
        with pytest.raises(ValueError, match="expected a path"):
            file_path(text)


def test_a_file_is_known_by_any_spelling_of_its_path(tmp_path: Path) -> None:
    (tmp_path / "day").mkdir()
    (tmp_path / "day/a.png").touch()
    (tmp_path / "night").symlink_to("day")
    (tmp_path / "b.png").symlink_to("day/a.png")
    listed = ListedFiles(tmp_path)
    assert listed.first_line("day/a.png", 2) == 2 and listed.first_line("day/A.png", 3) == 3
    for line, other in enumerate(
        ("./day/a.png", str(tmp_path / "day/a.png"), "x/../day/a.png", "night/a.png", "b.png")
    ):
        assert listed.first_line(other, line + 10) == 2, other
