"""Records, filters and urls: what they refuse, and that they need numpy alone."""

from __future__ import annotations

import math
import subprocess
import sys

import numpy as np
import pytest
from galleries import GIVEN_ONE as ONE
from galleries import changed

from vireid import types
from vireid.errors import GalleryError
from vireid.search import gallery
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter


def test_the_protocol_and_memory_import_neither_torch_nor_an_engine():
    code = (
        "import sys; from vireid.search.drivers.open import open_gallery; open_gallery('memory:', dim=4); "
        "print([name for name in ('torch', 'lancedb', 'pymilvus', 'pyarrow') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    assert (gallery.VISIBLE, gallery.INFRARED) == (types.VISIBLE, types.INFRARED)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("id", "", "needs an id"),
        ("id", "x" * 513, "at most 512 bytes"),
        ("path", "x" * (1 << 20), "at most 4096 bytes long, got 1048576"),
        ("camera", "夜" * 86, "at most 256 bytes long, got 258"),
        ("tags", ("x" * (1 << 20),), "at most 256 bytes"),
        ("tags", tuple(map(str, range(65))), "up to 64 different tags"),
        ("tags", ("a", "a"), "different tags"),
        ("tags", "bag", "tags is a list of texts"),
        ("tags", (3,), "tags is a text, got int"),
        ("path", "a\0b", "NUL"),
        ("path", b"x.jpg", "path is a text, got bytes"),
        ("path", "broken\udcff.jpg", "not valid Unicode"),
        ("time_s", math.inf, "Unix seconds or nan"),
        ("modality", 2, "0 .visible. or 1 .infrared."),
        ("modality", "infrared", "got 'infrared'"),
        ("modality", None, "got 'None'"),
    ],
)
def test_a_record_that_no_driver_could_keep_is_refused(field, value, message):
    with pytest.raises(GalleryError, match=message):
        changed(ONE, **{field: value})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"cameras": "cam1"}, "cameras is a list of texts"),
        ({"cameras": ("x" * (1 << 20),)}, "at most 256 bytes"),
        ({"tags": ({"$gt": 1},)}, "got dict"),
        ({"without_ids": (None,)}, "got NoneType"),
        ({"after_s": math.nan}, "after_s is in Unix seconds"),
        ({"before_s": math.inf}, "before_s is in Unix seconds"),
        ({"after_s": 5.0, "before_s": 5.0}, "must come before"),
        ({"modality": "1 OR 1=1"}, "modality is 0"),
        ({"tracks": ("a\0",)}, "NUL"),
    ],
)
def test_a_malformed_filter_is_refused(fields, message):
    with pytest.raises(GalleryError, match=message):
        Filter(**fields)


def test_lists_become_tuples_and_empty_is_empty():
    assert Filter(cameras=["a"]).cameras == ("a",) and Filter(cameras=[]).empty  # type: ignore[arg-type]
    assert not Filter(modality=0).empty and not Filter(after_s=0.0).empty and not Filter(pids=("",)).empty


def test_records_compare_without_their_vectors_and_unknown_times_are_equal():
    assert changed(ONE, time_s=math.nan) == changed(ONE, time_s=np.float64("nan"), vector=-ONE.vector)
    assert changed(ONE, track="other") != ONE


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("memory:x", "memory: takes no path"),
        ("lance:", "need one"),
        ("milvus:", "need one"),
        ("s3://bucket/x", "write ./NAME"),
        ("lance:s3://bucket/x", "object stores are not supported"),
        ("postgres:x", "memory:, lance:PATH or milvus:URI"),
        ("milvus:archive", "ends in .db"),
        ("milvus:http://root:secret@host:19530", "passwords do not belong"),
        ("milvus:a.db?index=IVF", "index=FLAT or index=HNSW"),
        ("milvus:a.db#a;b", "letters, digits"),
    ],
)
def test_urls_that_mean_nothing_are_refused(url, message):
    with pytest.raises(GalleryError, match=message) as caught:
        open_gallery(url, dim=4)
    assert "secret" not in str(caught.value)


def test_dimensions_out_of_range_are_refused():
    for dim in (0, -1, 40_000):
        with pytest.raises(GalleryError, match="1 to 32768"):
            open_gallery("memory:", dim=dim)
    with pytest.raises(GalleryError, match="needs dim="):
        open_gallery("memory:")
