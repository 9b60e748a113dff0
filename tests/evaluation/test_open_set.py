"""Open-set rank 1: against a loop over queries and thresholds, by eye, and in the command."""

from __future__ import annotations

import numpy as np
import pytest
from toy_tables import toy_embeddings

from vireid.data.datasets.ignore import same_pid_and_camera
from vireid.data.protocol import Protocol
from vireid.evaluation.open_set import evaluate_open_set, open_set
from vireid.types import INFRARED


def by_loop(similarity, query_pid, gallery_pid, ignored, rate) -> tuple[float, float]:
    """(TPIR, FPIR) at the lowest of all possible thresholds whose false alarms are not above the rate."""
    present, absent = [], []  # (answer is right, its similarity); similarity of the best image of others
    for q, pid in enumerate(query_pid):
        mine = [similarity[q, g] for g in range(len(gallery_pid)) if gallery_pid[g] == pid and not ignored[q, g]]
        others = [similarity[q, g] for g in range(len(gallery_pid)) if gallery_pid[g] != pid and not ignored[q, g]]
        if mine:
            present.append((not others or max(mine) > max(others), max(mine)))
        if others:
            absent.append(max(others))
    for threshold in sorted({-np.inf, *absent}):
        alarms = sum(value > threshold for value in absent) / len(absent)
        if alarms <= rate + 1e-12:
            return sum(right and value > threshold for right, value in present) / len(present), alarms
    raise AssertionError


@pytest.mark.parametrize("seed", range(6))
def test_equals_a_loop(seed: int) -> None:
    random = np.random.RandomState(seed)
    query_pid, gallery_pid = random.randint(0, 9, 60), random.randint(0, 7, 40)  # 7 and 8 are nobody
    similarity = random.rand(60, 40).astype(np.float32) + 0.5 * (query_pid[:, None] == gallery_pid[None, :])
    if seed % 2:
        similarity = np.round(similarity * 8) / 8  # ties
    ignored = random.rand(60, 40) < 0.2
    rates = (1 / 60, 0.1, 0.3)
    found = open_set(similarity, query_pid, gallery_pid, ignored, rates)
    for place, rate in enumerate(rates):
        tpir, fpir = by_loop(similarity, query_pid, gallery_pid, ignored, rate)
        assert found.tpir[place] == pytest.approx(tpir) and found.fpir[place] == pytest.approx(fpir)
        assert fpir <= rate
    assert list(found.tpir) == sorted(found.tpir) and found.num_absent == 60 > found.num_present


def test_by_eye() -> None:
    # three people, each asked for once; the third one's own picture is not the best
    similarity = np.array([[0.9, 0.2, 0.1], [0.1, 0.5, 0.4], [0.8, 0.3, 0.7]])
    found = open_set(similarity, [1, 2, 3], [1, 2, 3], rates=(0.4, 0.7))
    # absent: 0.2, 0.4 and 0.8. One alarm of three allowed: above 0.4; two of three: above 0.2
    assert found.thresholds == pytest.approx((0.4, 0.2)) and found.tpir == pytest.approx((2 / 3, 2 / 3))
    assert found.fpir == pytest.approx((1 / 3, 2 / 3)) and (found.num_present, found.num_absent) == (3, 3)
    tied = open_set(np.ones((4, 3)), [1, 2, 3, 3], [1, 2, 3], rates=(0.5,))
    assert tied.tpir == (0.0,) and tied.fpir == (0.0,)  # a constant embedding gets the worst


def test_errors() -> None:
    good = np.eye(3)
    with pytest.raises(ValueError, match=r"0\.01 needs at least 100 searches, there are 3"):
        open_set(good, [1, 2, 3], [1, 2, 3])
    with pytest.raises(ValueError, match="between 0 and 1, got 0"):
        open_set(good, [1, 2, 3], [1, 2, 3], rates=(0,))
    with pytest.raises(ValueError, match="none of the 3 queries has a true match"):
        open_set(good, [4, 5, 6], [1, 2, 3])
    with pytest.raises(ValueError, match="no query has a wrong image"):
        open_set(good, [1, 1, 1], [1, 1, 1])
    with pytest.raises(ValueError, match="the gallery is empty"):
        open_set(good[:, :0], [1, 2, 3], [])
    with pytest.raises(ValueError, match=r"must be \(3, 2\)"):
        open_set(good, [1, 2, 3], [1, 2])
    with pytest.raises(ValueError, match="must be finite"):
        open_set(good * np.nan, [1, 2, 3], [1, 2, 3])


def test_over_the_trials_of_a_protocol(monkeypatch: pytest.MonkeyPatch) -> None:
    embeddings = toy_embeddings(rows=240, people=12)
    infrared = embeddings.table.modality == INFRARED
    queries, gallery = np.flatnonzero(infrared), np.flatnonzero(~infrared)
    protocol = Protocol("toy", lambda table: [(queries, gallery), (queries[:110], gallery[::2])], same_pid_and_camera)
    unit = embeddings.vectors / np.linalg.norm(embeddings.vectors, axis=1, keepdims=True)
    pid = embeddings.table.pid
    whole = open_set(unit[queries] @ unit[gallery].T, pid[queries], pid[gallery])
    for blocks in (False, True):
        if blocks:
            monkeypatch.setattr("vireid.evaluation.evaluate.BLOCK_BYTES", 4 * 120 * 7)
        first, second = evaluate_open_set(embeddings, protocol)
        assert first.tpir == pytest.approx(whole.tpir) and first.num_absent == 120
        assert second.num_absent == 110 and second.tpir[0] <= second.tpir[1] > 0
