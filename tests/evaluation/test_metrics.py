"""Metrics against recorded evaluators, a slow one, matrices that one checks by eye, and invariances."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from golden_files import GOLDEN
from hypothesis import given, settings
from hypothesis import strategies as st
from slow_evaluator import slow_figures

from vireid.evaluation import metrics
from vireid.evaluation.metrics import Tally, measure


def agree(found, expected, tolerance=1e-6):
    cmc, mean_ap, mean_inp, valid = expected
    np.testing.assert_allclose(found.cmc, cmc, atol=tolerance)
    assert found.mAP == pytest.approx(mean_ap, abs=tolerance)
    assert found.mINP == pytest.approx(mean_inp, abs=tolerance)
    assert found.num_valid == valid


def cosine(a, b):
    return (a / np.linalg.norm(a, axis=1, keepdims=True)) @ (b / np.linalg.norm(b, axis=1, keepdims=True)).T


@pytest.mark.parametrize("mode", ["all", "indoor"])
def test_recorded_sysu_evaluator(mode):
    a = {k.removeprefix(mode + "_"): v for k, v in np.load(GOLDEN / "agw_eval_sysu_toy.npz").items()}
    ignored = (a["qcam"][:, None] == 3) & (a["gcam"] == 2)
    found = measure(cosine(a["qfeat"], a["gfeat"]), a["qid"], a["gid"], ignored, cmc_over_pids=True)
    agree(found, (a["cmc"], a["mAP"], a["mINP"], found.num_valid))
    assert found.num_valid == found.num_queries == 60


def test_recorded_regdb_evaluator():
    a = np.load(GOLDEN / "agw_eval_regdb_toy.npz")
    similarity = cosine(a["qfeat"], a["gfeat"])
    agree(measure(similarity, a["qid"], a["gid"]), (a["v2t_cmc"], a["v2t_mAP"], a["v2t_mINP"], 75))
    agree(measure(similarity.T, a["gid"], a["qid"]), (a["t2v_cmc"], a["t2v_mAP"], a["t2v_mINP"], 100))


def test_by_eye_images_against_identities():
    # ranked: wrong 2, wrong 2, wrong 3, right, wrong 3, right
    found = measure([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], [1], [2, 2, 3, 1, 3, 1])
    assert found.cmc[:5] == (0, 0, 0, 1, 1)
    assert found.mAP == pytest.approx((1 / 4 + 2 / 6) / 2)
    assert found.mINP == pytest.approx(2 / 6)
    over_pids = measure([[0.9, 0.8, 0.7, 0.6, 0.5, 0.4]], [1], [2, 2, 3, 1, 3, 1], cmc_over_pids=True)
    assert over_pids.cmc[:4] == (0, 0, 1, 1)
    assert (over_pids.mAP, over_pids.mINP) == (found.mAP, found.mINP)


def test_small_gallery_has_a_whole_cmc():
    found = measure([[0.1, 0.9]], [1], [1, 2], cmc_over_pids=True)
    assert found.cmc == (0.0,) + (1.0,) * 19
    assert (found.rank1, found.rank5, found.rank10, found.rank20) == (0, 1, 1, 1)
    with pytest.raises(ValueError, match="ranks 1 to 20"):
        found.rank(21)


def test_ignored_images_do_not_count():
    similarity, ignored = [[0.9, 0.8, 0.7]], [[True, False, False]]
    assert measure(similarity, [1], [2, 1, 1], ignored).mAP == 1
    # an ignored true match is neither found nor missing
    assert measure(similarity, [1], [1, 2, 1], ignored).mAP == pytest.approx(1 / 2)


def test_queries_without_a_match_are_left_out_and_counted():
    similarity = [[0.9, 0.1, 0.5], [0.2, 0.3, 0.4], [0.1, 0.2, 0.9]]
    ignored = [[False] * 3, [False] * 3, [False, False, True]]  # pid 5 is unknown, the third's only match is ignored
    found = measure(similarity, [1, 5, 3], [1, 2, 3], ignored, cmc_over_pids=True)
    assert (found.num_queries, found.num_valid, found.rank1, found.mAP) == (3, 1, 1, 1)


@pytest.mark.parametrize("over_pids", [False, True])
def test_ties_never_help(over_pids):
    constant = measure(np.ones((1, 4)), [1], [1, 2, 1, 3], cmc_over_pids=over_pids)
    assert constant.mAP == pytest.approx((1 / 3 + 2 / 4) / 2)
    assert constant.cmc[:3] == (0, 0, 1)


def test_bad_input_is_named():
    with pytest.raises(ValueError, match="in 1 of 2 rows they are not"):
        measure([[0.1, float("nan")], [0.2, 0.3]], [1, 2], [1, 2])
    with pytest.raises(ValueError, match="finite"):
        measure([[0.1, -np.inf]], [1], [1, 2])
    with pytest.raises(ValueError, match="gallery is empty"):
        measure(np.zeros((2, 0)), [1, 2], [])
    with pytest.raises(ValueError, match="none of the 2 queries has a true match"):
        measure(np.zeros((2, 2)), [1, 2], [3, 4])
    with pytest.raises(ValueError, match=r"none of the 0 queries"):
        measure(np.zeros((0, 2)), [], [3, 4])
    with pytest.raises(ValueError, match=r"\(2, 3\).*got \(3, 2\)"):
        measure(np.zeros((3, 2)), [1, 2], [1, 2, 3])
    with pytest.raises(ValueError, match="mask of ignored"):
        measure(np.zeros((2, 2)), [1, 2], [1, 2], [[True, False]])


@st.composite
def problems(draw):
    queries, gallery, people = draw(st.integers(1, 12)), draw(st.integers(1, 30)), draw(st.integers(1, 8))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    levels = draw(st.sampled_from([2, 5, 10**6]))  # few levels make ties
    similarity = random.integers(-levels, levels, (queries, gallery)) / levels
    pids = random.integers(0, people, queries + gallery) * 7 - 3
    ignored = random.random((queries, gallery)) < draw(st.sampled_from([0.0, 0.3]))
    return similarity, pids[:queries], pids[queries:], ignored


@settings(max_examples=80, derandomize=True)
@given(problems(), st.booleans())
def test_equals_the_slow_evaluator(problem, over_pids):
    similarity, query_pid, gallery_pid, ignored = problem
    right = (query_pid[:, None] == gallery_pid) & ~ignored
    if not right.any():
        with pytest.raises(ValueError, match="true match"):
            measure(*problem, cmc_over_pids=over_pids)
        return
    found = measure(*problem, cmc_over_pids=over_pids)
    agree(found, slow_figures(*problem, cmc_over_pids=over_pids), 1e-12)
    rows, columns = (
        np.random.default_rng(0).permutation(len(query_pid)),
        np.random.default_rng(1).permutation(len(gallery_pid)),
    )
    moved = (similarity[rows][:, columns] * 3 + 1, query_pid[rows], gallery_pid[columns], ignored[rows][:, columns])
    agree(measure(*moved, cmc_over_pids=over_pids), (found.cmc, found.mAP, found.mINP, found.num_valid), 1e-12)


@pytest.mark.parametrize("threads", [1, 2])
def test_chunks_and_threads_change_nothing(monkeypatch, threads):
    random = np.random.default_rng(0)
    query_pid, gallery_pid = random.integers(0, 9, 300), random.integers(0, 9, 500)
    similarity = random.random((300, 500), dtype=np.float32)
    expected = slow_figures(similarity, query_pid, gallery_pid, cmc_over_pids=True)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        agree(measure(similarity, query_pid, gallery_pid, cmc_over_pids=True), expected, 1e-12)
        monkeypatch.setattr(metrics, "CHUNK", 700)
        agree(measure(similarity, query_pid, gallery_pid, cmc_over_pids=True), expected, 1e-12)
    finally:
        torch.set_num_threads(before)


def test_input_is_left_alone():
    similarity = torch.rand(5, 7)
    before = similarity.clone()
    measure(similarity, [1] * 5, [1, 2, 3, 4, 5, 6, 7], np.ones((5, 7)) * [0, 1, 0, 0, 0, 0, 0])
    assert torch.equal(similarity, before)


def test_levels_hold_every_identity_once():
    tally = Tally(np.array([5, 9, 5, 7, 9, 5]))
    assert tally.order.tolist() == [0, 1, 3, 2, 4, 5]  # 5 9 7 | 5 9 | 5
    assert tally.starts.tolist() == [0, 3, 5, 6]
