"""Filters as SQL of LanceDB and as expressions of Milvus: every condition, in one order, with quoted texts."""

from __future__ import annotations

import dataclasses

from vireid.search.drivers.lance_rows import SQL, condition
from vireid.search.drivers.milvus import EXPR
from vireid.search.gallery import EVERYTHING, Filter

ALL = Filter(
    cameras=("a", "b'{values}"), after_s=1, before_s=2.5, modality=1, tags=("hat", 'say "x"'), pids=("p",),
    tracks=("t",), without_ids=("r\n",),
)  # fmt: skip


def test_every_condition_of_a_filter_is_written() -> None:
    assert all(getattr(ALL, field.name) not in ((), None) for field in dataclasses.fields(Filter))
    assert SQL.condition(ALL, "o'b") == (
        "id > 'o''b' AND camera IN ('a', 'b''{values}') AND pid IN ('p') AND track IN ('t') AND time_s >= 1.0 AND "
        "time_s < 2.5 AND modality = 1 AND array_has_all(tags, ['hat', 'say \"x\"']) AND NOT (id IN ('r\n'))"
    )
    assert EXPR.condition(ALL, "o'b") == (
        'id > "o\'b" and camera in ["a", "b\'{values}"] and pid in ["p"] and track in ["t"] and time_s >= 1.0 and '
        'time_s < 2.5 and modality == 1 and array_contains_all(tags, ["hat", "say \\"x\\""]) and id not in ["r\\n"]'
    )


def test_a_filter_without_conditions_is_an_empty_text() -> None:
    assert SQL.condition(EVERYTHING) == EXPR.condition(EVERYTHING) == ""
    assert condition(EVERYTHING) is None and condition(EVERYTHING, "") == "id > ''"
