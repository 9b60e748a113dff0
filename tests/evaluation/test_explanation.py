"""Explanation: every cause of a difference is worth what a computation by hand says, and all add up."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from vireid.data.datasets import llcm, sysu
from vireid.data.table import table_from_columns
from vireid.errors import ArgumentError, DataError
from vireid.evaluation.embed import Embeddings
from vireid.evaluation.explanation import Explanation, Side, explain_sides
from vireid.evaluation.rescore import Conditions, Stored, between

FORTH, BACK = "manifest/visible-to-infrared", "manifest/infrared-to-visible"
HALF = {"R1": 0.5, "mAP": 0.75}
ALL = {"R1": 1.0, "mAP": 1.0}
Line = tuple[int, str, tuple[float, float]]  # person, modality, vector
# Cosine finds both people. By distance (10, 0) lies farther from (1, 0) than (1, 1) does: rank 1 is 1/2, AP 1/2 and 1.
LINES: tuple[Line, ...] = (
    (1, "visible", (1, 0)),
    (2, "visible", (0, 1)),
    (1, "infrared", (10, 0)),
    (2, "infrared", (1, 1)),
)


def embeddings(lines: Sequence[Line], layer: str = "neck", flip: str = "none") -> Embeddings:
    pids, kinds, vectors = zip(*lines, strict=True)
    columns = {
        "path": [f"{pid}-{kind}.png" for pid, kind in zip(pids, kinds, strict=True)],
        "pid": list(pids),
        "camid": [1 + (kind == "infrared") for kind in kinds],
        "modality": [int(kind == "infrared") for kind in kinds],
        "split": ["test"] * len(lines),
    }
    table = table_from_columns("somewhere", columns, "manifest")
    return Embeddings(np.array(vectors, np.float32), table, {"layer": layer, "flip": flip, "images": str(len(lines))})


def side(name: str, figures: dict[str, float], *kept: Embeddings, protocol: str = FORTH, **stamp: str) -> Side:
    """A side with these figures, measured by cosine on layer neck unless the stamp says otherwise."""
    files = {(one.stamp["layer"], one.stamp["flip"]): one for one in kept}
    images = {"images": kept[0].stamp["images"]} if kept else {}
    stamp = {"similarity": "cosine", "layer": "neck", "flip": "none", **images, **stamp}
    stored = Stored(tuple(files), lambda key: files[key], f"runs/{name}")
    return Side(name, figures, Conditions.of(protocol, stamp), stamp, stored)


def worth(explanation: Explanation) -> dict[str, Any]:
    """R1 and mAP of each cause and of the rest, in percent."""
    causes = {cause.name: cause.points for cause in explanation.causes} | {"rest": explanation.rest}
    return {
        name: None if part is None else pytest.approx((100 * part["R1"], 100 * part["mAP"]), abs=1e-9)
        for name, part in causes.items()
    }


def test_a_condition_is_worth_what_it_changes_and_the_rest_is_the_networks() -> None:
    first = side("a", ALL, embeddings(LINES), method="AGW", run="a")
    second = side("b", {"R1": 0.4, "mAP": 0.7}, embeddings(LINES), similarity="euclidean", method="CAJL", run="b")
    explanation = explain_sides(first, second)
    assert worth(explanation) == {"similarity": (-50, -25), "rest": (-10, -5)}
    assert explanation.causes[0].alone == explanation.causes[0].points
    assert explanation.notes()[-1] == "the rest holds: method: AGW and CAJL"


def test_causes_that_depend_on_each_other_say_so() -> None:
    """The second layer holds unit vectors, on which both similarities find both people."""
    pooled = [(pid, kind, (v[0] / np.hypot(*v), v[1] / np.hypot(*v))) for pid, kind, v in LINES]
    first = side("a", HALF, embeddings(LINES), embeddings(pooled, "pooled"), similarity="euclidean")
    second = side("b", ALL, embeddings(pooled, "pooled"), layer="pooled")
    explanation = explain_sides(first, second)
    assert worth(explanation) == {"similarity": (50, 25), "layer": (0, 0), "rest": (0, 0)}
    assert [cause.alone and cause.alone["R1"] for cause in explanation.causes] == [0.5, 0.5]


def test_what_the_first_did_not_store_is_measured_on_the_second_or_named() -> None:
    first = side("a", ALL, embeddings(LINES))
    mirrored = [(pid, kind, vector[::-1]) for pid, kind, vector in LINES]
    wrong = [(1, "visible", (1.0, 0.0)), (2, "visible", (1.0, 0.0)), *mirrored[2:]]
    kept = (embeddings(LINES), embeddings(wrong, flip="averaged"))
    explanation = explain_sides(first, side("b", {"R1": 0.5, "mAP": 0.75}, *kept, flip="averaged"))
    assert worth(explanation) == {"flip": (-50, -25), "rest": (0, 0)}
    assert "measured on the vectors of the second, not of the first, flip: no such vectors" in explanation.markdown()
    explanation = explain_sides(first, side("b", HALF, kept[1], flip="averaged", checkpoint="test set"))
    assert worth(explanation) == {"flip": None, "checkpoint": None, "rest": (-50, -25)}
    assert "| flip | none | averaged | not measured |" in explanation.markdown()
    assert "write them with: vireid embed runs/a --flip" in explanation.markdown()


def test_pictures_of_one_side_alone_are_a_cause() -> None:
    """The infrared picture of person 3 takes the first place from that of person 2."""
    third: tuple[Line, ...] = ((3, "visible", (-1, 0)), (3, "infrared", (0, 1)))
    first = side("a", {"R1": 2 / 3, "mAP": 5 / 6}, embeddings([*LINES, *third]))
    second = side("b", HALF, embeddings(LINES), similarity="euclidean")
    explanation = explain_sides(first, second)
    assert worth(explanation) == {
        "pictures that the second does not test": (100 / 3, 50 / 3),
        "similarity": (-50, -25),
        "rest": (0, 0),
    }
    assert explanation.causes[0].first == "6 pictures" and explanation.causes[0].second == "4 in common"
    stranger = side("c", ALL, embeddings([(pid + 7, kind, vector) for pid, kind, vector in [*LINES, *LINES[:1]]]))
    apart = explain_sides(first, stranger)
    assert worth(apart)["pictures that the second does not test"] is None
    assert "they have no picture in common" in apart.markdown()


def test_directions_and_ignore_rules_are_steps_between_protocols() -> None:
    first = side("a", ALL, embeddings(LINES))
    second = side("b", ALL, embeddings(LINES), protocol=f"{BACK}/ignore-same-pid-and-camera")
    explanation = explain_sides(first, second)
    causes = explanation.causes
    assert [(cause.name, cause.first, cause.second) for cause in causes] == [
        ("queries", "all visible images of query, else test", "all infrared images of query, else test"),
        ("ignored", "nothing", "same-pid-and-camera"),
    ]
    assert worth(explanation) == {"queries": (-50, -25), "ignored": (0, 0), "rest": (50, 25)}  # (1, 1) is like both


@pytest.mark.parametrize(
    ("known", "path"),
    [
        (sysu.protocols, ["sysu/all/multi-shot", "sysu/all/single-shot", "sysu/all/single-shot/agw"]),
        (sysu.protocols, ["sysu/indoor/single-shot/agw", "sysu/all/single-shot/agw", "sysu/all/single-shot"]),
        (llcm.protocols, ["llcm/infrared-to-visible", "llcm/visible-to-infrared/as-published-code"]),
    ],
)
def test_protocols_lead_to_each_other_in_small_steps(known, path) -> None:
    """A combination that nobody measures (agw's draw of ten shots) is not a step."""
    steps = between(known[path[0]], known[path[-1]], known.values())
    assert [protocol.name for protocol in steps] == path[1:]


def test_figures_that_the_stored_vectors_do_not_give_are_refused() -> None:
    with pytest.raises(DataError, match=r"give R1 100\.00, its figure is 50\.00: one of them was replaced"):
        explain_sides(side("a", HALF, embeddings(LINES)), side("b", ALL, embeddings(LINES)))
    with pytest.raises(DataError, match="no such vectors are stored"):
        explain_sides(side("a", ALL), side("b", ALL, embeddings(LINES)))
    with pytest.raises(ArgumentError, match="a refinement, which is not re-scored; name it second"):
        explain_sides(side("a", ALL, embeddings(LINES), refine="nformer"), side("b", ALL))
    with pytest.raises(ArgumentError, match="need R1 or mAP in common"):
        explain_sides(side("a", ALL, embeddings(LINES)), side("b", {"R5": 1.0}, embeddings(LINES)))


def test_every_form_holds_the_same_figures() -> None:
    first = side("a", ALL, embeddings(LINES))
    explanation = explain_sides(first, side("b", HALF, embeddings(LINES), similarity="euclidean"))
    content = json.loads(explanation.json())
    assert content["causes"][0]["points"]["mAP"] == -0.25 and content["rest"] == {"R1": 0.0, "mAP": 0.0}
    assert explanation.csv().splitlines()[1] == "similarity,cosine,euclidean,-0.5,-0.25,-0.5,-0.25,"
    assert "| similarity | cosine | euclidean | -50.00 | -25.00 | -50.00 | -25.00 |" in explanation.markdown()
    assert r"similarity & cosine & euclidean & -50.00" in explanation.latex()
