"""The Searcher against plain numpy: several pictures, re-ranking, marks, probabilities and nobody."""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from galleries import DIGEST, changed, exact, records, unit

from vireid.deploy.calibration import Calibration, Pair
from vireid.errors import CalibrationError, GalleryError, SearchError, SettingsError
from vireid.evaluation.local_shortest_path import LocalShortestPath
from vireid.evaluation.rerank import KReciprocal
from vireid.images import STRETCH
from vireid.search.drivers.open import open_gallery
from vireid.search.gallery import Filter
from vireid.search.searcher import Marks, Searcher, SearchOptions, mean_vector, rocchio
from vireid.search.tracks import best_of

DIM = 16
FEW = "similarity (fewer than 30 visible rows)"
GIVEN = records(56)  # 28 of each modality: too few for a cohort, so that hits are ordered by similarity
VECTORS = {record.id: record.vector for record in GIVEN}


class Extractor:
    """Vectors of "pictures" that are numbers, as FeatureExtractor gives them: in batches, with the modality."""

    bundle = SimpleNamespace(config=SimpleNamespace(digest=DIGEST))
    gray = STRETCH

    def with_gray(self, gray):
        other = Extractor()
        other.gray = gray
        return other

    def batches(self, pictures, modality="auto"):
        pictures = [pictures] if isinstance(pictures, int) else list(pictures)
        kind = {"visible": 0, "infrared": 1, "auto": 0}[modality]
        for start in range(0, len(pictures), 2):
            part = pictures[start : start + 2]
            yield np.concatenate([unit(1, seed=number) for number in part]), np.full(len(part), kind)


@dataclass
class Calibrated:
    """p = similarity / 2 + 1/2 less a tenth where modalities differ; thresholds by gallery modality."""

    bars: dict = field(default_factory=lambda: {0: 0.5, 1: 0.4})
    embedder: str = DIGEST

    def probability(self, similarity, pair, prior=0.5):
        return similarity / 2 + 0.5 - 0.1 * (pair[0] != pair[1])

    def log_odds(self, similarity, pair, prior=0.5):
        return np.log(1 / (1 - self.probability(similarity, pair)) - 1)

    def threshold(self, false_match_rate, pair):
        if pair[1] not in self.bars:
            raise CalibrationError("no table")
        return self.bars[pair[1]] + (0.1 if false_match_rate < 0.01 else 0)


@pytest.fixture
def gallery():
    found = open_gallery("memory:", dim=DIM, bundle_digest=DIGEST)
    found.add(GIVEN)
    return found


@pytest.fixture
def searcher(gallery):
    return Searcher(Extractor(), gallery)


def names(answer):
    return [hit.record.id for hit in answer.hits]


def test_one_picture_gives_the_exact_ranking(searcher):
    answer = searcher.search(5, "visible", k=12)
    assert names(answer) == exact(GIVEN, unit(1, seed=5), 12)[0]
    for hit in answer.hits:
        assert (
            hit.similarity == hit.order == pytest.approx(float(VECTORS[hit.record.id] @ unit(1, seed=5)[0]), abs=1e-6)
        )
        assert hit.probability is None and hit.record.vector.shape == (0,)
    assert answer.nobody is None and answer.matches is None and answer.stamp == {"rerank": "none", "scores": FEW}
    assert answer.uncalibrated == "there is no calibration"
    narrow = Filter(cameras=("cam1",), modality=1)
    assert names(searcher.search(5, k=12, where=narrow)) == exact(GIVEN, unit(1, seed=5), 12, narrow)[0]


def test_several_pictures_averaged_or_the_best_of_them(searcher):
    pictures = [1, 2, 3]
    vectors = np.concatenate([unit(1, seed=number) for number in pictures])
    mean = vectors.mean(0)
    mean /= np.linalg.norm(mean)
    assert names(searcher.search(pictures, k=15)) == exact(GIVEN, mean[None], 15)[0]
    best = {each: max(float(vector @ query) for query in vectors) for each, vector in VECTORS.items()}
    answer = searcher.search(pictures, k=15, combine="best")
    assert names(answer) == sorted(best, key=lambda each: -best[each])[:15]
    assert [hit.similarity for hit in answer.hits] == pytest.approx([best[each] for each in names(answer)], abs=1e-6)
    assert answer.stamp["combine"] == "best" and names(answer) != names(searcher.search(pictures, k=15))


def test_vectors_of_the_gallery_as_queries(searcher):
    ids = ["r00007", "r00031"]
    answer = searcher.search_records(ids, k=9, combine="best")
    best = {each: max(float(vector @ VECTORS[i]) for i in ids) for each, vector in VECTORS.items() if each not in ids}
    assert names(answer) == sorted(best, key=lambda each: -best[each])[:9]
    with pytest.raises(GalleryError, match="not in the gallery"):
        searcher.search_records(["nope"])


def test_marks_move_the_query_by_rocchio_and_hide_what_is_wrong(searcher):
    plain = names(searcher.search(4, k=10))
    marks = Marks(right=(plain[3], plain[8]), wrong=(plain[0], plain[1]))
    right = (VECTORS[plain[3]] + VECTORS[plain[8]]) / 2
    wrong = (VECTORS[plain[0]] + VECTORS[plain[1]]) / 2
    moved = unit(1, seed=4)[0] + 0.75 * right - 0.15 * wrong
    moved /= np.linalg.norm(moved)
    answer = searcher.search(4, k=10, marks=marks)
    expected = exact(GIVEN, moved[None], 10, Filter(without_ids=marks.wrong))[0]
    assert names(answer) == expected != [each for each in plain if each not in marks.wrong]
    assert answer.stamp["feedback"] == "rocchio right=2 wrong=2"
    for hit in answer.hits:  # what is told stays the similarity with the query that was asked
        assert hit.similarity == pytest.approx(float(VECTORS[hit.record.id] @ unit(1, seed=4)[0]), abs=1e-6)
        assert hit.order == pytest.approx(float(VECTORS[hit.record.id] @ moved), abs=1e-6)
    assert marks.wrong[0] not in names(searcher.search(4, k=80, marks=marks))


def test_a_right_mark_carries_the_query_across_modalities():
    """Infrared pictures lie far from visible ones; one right mark each brings more of the same people up."""
    random, people = np.random.default_rng(0), 12
    person, shift = random.standard_normal((people, DIM)), 2 * random.standard_normal(DIM)
    infrared = person[:, None] + shift + 0.4 * random.standard_normal((people, 5, DIM))
    infrared /= np.linalg.norm(infrared, axis=2, keepdims=True)
    queries = person + 1.2 * random.standard_normal((people, DIM))
    queries = (queries / np.linalg.norm(queries, axis=1, keepdims=True)).astype(np.float32)
    gallery = open_gallery("memory:", dim=DIM)
    for who in range(people):
        gallery.add(
            changed(record, id=f"p{who:02}-{n}", vector=infrared[who, n].astype(np.float32), modality=1)
            for n, record in enumerate(records(5))
        )
    searcher, found, marked = Searcher(None, gallery), 0, 0
    for who, query in enumerate(queries):
        ranked = names(searcher.search_vectors(query[None], [0], 60))
        right = next(each for each in ranked if each.startswith(f"p{who:02}"))
        again = names(searcher.search_vectors(query[None], [0], 5, marks=Marks(right=(right,))))
        found += sum(each.startswith(f"p{who:02}") for each in {*ranked[:5], right})  # the mark itself is no gain
        marked += sum(each.startswith(f"p{who:02}") for each in again)
    assert found < 0.9 * marked


def test_marks_that_contradict_or_are_unknown_are_refused(searcher):
    with pytest.raises(SearchError, match="'r00001' is marked right and wrong"):
        Marks(("r00001",), ("r00001",))
    with pytest.raises(SearchError, match="list of ids"):
        Marks("r00001")  # type: ignore[arg-type]
    with pytest.raises(GalleryError, match="'gone'"):
        searcher.search(1, marks=Marks(right=("gone",)))
    with pytest.raises(SearchError, match="cancel the query out"):
        rocchio(unit(1), [-unit(1)[0] / 0.75], [])
    with pytest.raises(SearchError, match="opposite directions"):
        mean_vector(np.concatenate([unit(1), -unit(1)]))


@pytest.mark.parametrize("combine", ["mean", "best"])
def test_k_reciprocal_orders_the_shortlist_alone(searcher, combine):
    rerank = KReciprocal(k1=8, k2=3)
    pictures = [1, 2]
    queries = np.concatenate([unit(1, seed=number) for number in pictures])
    queries = mean_vector(queries) if combine == "mean" else queries
    shortlist = names(searcher.search(pictures, k=30, combine=combine))
    vectors = np.stack([VECTORS[each] for each in shortlist])
    expected = rerank(torch.from_numpy(queries), torch.from_numpy(vectors)).numpy().max(0)
    answer = searcher.search(pictures, k=10, combine=combine, rerank=rerank, shortlist=30)
    order = sorted(range(30), key=lambda at: -expected[at])[:10]
    assert names(answer) == [shortlist[at] for at in order] != shortlist[:10]
    assert [hit.order for hit in answer.hits] == pytest.approx([expected[at] for at in order], abs=1e-6)
    assert answer.stamp["rerank"] == "k-reciprocal k1=8 k2=3 weight=0.3 of 30"
    for hit in answer.hits:
        assert hit.similarity == pytest.approx(float((queries @ VECTORS[hit.record.id]).max()), abs=1e-6)


def test_k_reciprocal_takes_fewer_neighbors_where_few_pass_and_says_so(searcher):
    few = Filter(cameras=("cam1",), modality=1, tags=("hat",))
    count = searcher.gallery.count(few)
    assert 1 < count < 20
    answer = searcher.search(1, where=few, rerank=KReciprocal())
    assert len(answer.hits) == count and answer.stamp["rerank"].startswith(f"k-reciprocal k1={count} ")
    nobody = Filter(cameras=("nowhere",))
    assert searcher.search(1, where=nobody, rerank=KReciprocal()).hits == []


def test_the_shortest_path_orders_the_shortlist(searcher):
    rerank = LocalShortestPath(stripes=3, dim=4, shortlist=5)
    answer = searcher.search(7, k=8, rerank=rerank, shortlist=20)
    shortlist = names(searcher.search(7, k=20))
    vectors = torch.from_numpy(np.stack([VECTORS[each] for each in shortlist]))
    expected = LocalShortestPath(stripes=3, dim=4, shortlist=None)(torch.from_numpy(unit(1, seed=7)), vectors)[
        0
    ].numpy()
    assert names(answer) == [shortlist[at] for at in np.argsort(-expected, kind="stable")[:8]]
    assert "shortlist=all" in answer.stamp["rerank"]
    with pytest.raises(ValueError, match="stripes"):
        searcher.search(7, rerank=LocalShortestPath(stripes=30, dim=4))


class Averaging(torch.nn.Module):
    """A refiner: every vector plus the mean of the others of its modality."""

    name = "averaging"

    def forward(self, vectors, modality, apart=None):
        return torch.stack([v + vectors[modality == m].mean(0) for v, m in zip(vectors, modality, strict=True)])


def test_a_refiner_changes_query_and_shortlist_together(searcher):
    answer = searcher.search(2, "infrared", k=6, rerank=Averaging().eval(), shortlist=25)
    shortlist = [r for each in names(searcher.search(2, "infrared", k=25)) for r in GIVEN if r.id == each]
    every = torch.from_numpy(np.concatenate([unit(1, seed=2), np.stack([r.vector for r in shortlist])]))
    refined = Averaging()(every, torch.tensor([1, *(r.modality for r in shortlist)]))
    refined = torch.nn.functional.normalize(refined, dim=1)
    order = (refined[1:] @ refined[0]).argsort(descending=True, stable=True)[:6]
    assert names(answer) == [shortlist[at].id for at in order]
    assert answer.stamp["rerank"] == "refiner averaging of 25"
    with pytest.raises(SearchError, match="training mode"):
        searcher.search(2, rerank=Averaging())


def test_a_re_ranking_that_returns_something_else_is_refused(searcher):
    for wrong in (lambda q, g: q, lambda q, g: q @ g.T * torch.nan):
        with pytest.raises(SearchError, match="finite similarities"):
            searcher.search(1, rerank=wrong)


def test_probabilities_are_those_of_the_pair_of_modalities(gallery):
    searcher = Searcher(Extractor(), gallery, Calibrated())
    answer = searcher.search(3, "infrared", k=20)
    assert {hit.record.modality for hit in answer.hits} == {0, 1} and answer.uncalibrated == ""
    for hit in answer.hits:
        expected = hit.similarity / 2 + 0.5 - (0.1 if hit.record.modality == 0 else 0)
        assert hit.probability == pytest.approx(expected)
    both = searcher.search_vectors(np.concatenate([unit(1, seed=3), unit(1, seed=4)]), [0, 1], k=5)
    for hit in both.hits:  # queries of both modalities: the more careful of the two
        assert hit.probability == pytest.approx(hit.similarity / 2 + 0.4)


def test_the_prior_moves_the_odds_and_neither_order_nor_similarity(gallery):
    """Posterior odds are prior odds times the likelihood ratio, which the probability at even chances gives away."""
    logistic = Pair(same_pairs=500, other_pairs=4000, people=40, offset=-2, slope=5, cllr=0.5, rows=())
    pairs = {"visible/visible": logistic, "visible/infrared": logistic.model_copy(update={"slope": 3.0})}
    made = Calibration(
        embedder=DIGEST, dataset="x", split="val", images="", people="unseen", ignored="", pairs=pairs, missing={}
    )
    searcher = Searcher(Extractor(), gallery, made)
    even = searcher.search(3, "visible", k=30, prior=0.5)
    assert even.stamp["prior"] == "0.5" and {hit.record.modality for hit in even.hits} == {0, 1}
    for prior in (1 / 64, 1 / 3, 0.9):
        answer = searcher.search(3, "visible", k=30, prior=prior)
        assert names(answer) == names(even) and answer.stamp["prior"] == f"{prior:.4g}"
        for hit, before in zip(answer.hits, even.hits, strict=True):
            assert before.probability is not None
            ratio = before.probability / (1 - before.probability)
            slope = 5 if hit.record.modality == 0 else 3
            assert ratio == pytest.approx(np.exp(-2 + slope * hit.similarity), rel=1e-9)
            odds = prior / (1 - prior) * ratio
            assert hit.probability == pytest.approx(odds / (1 + odds), rel=1e-9)
            assert hit.similarity == before.similarity
    # one of N rows of the very same likeness: each of them has 1 / N, they share what there is
    alike = made.probability(0.4, (0, 0), prior=1 / 4)  # likelihood ratio 1 at 0.4
    assert float(alike) == pytest.approx(1 / 4)
    for wrong in (0, 1, -0.1, 2):
        with pytest.raises(SettingsError, match="`prior`: expected searched or number > 0 and < 1, got"):
            searcher.search(3, prior=wrong)


def test_a_missing_table_leaves_probabilities_out_and_says_why(gallery):
    class Half(Calibrated):
        def probability(self, similarity, pair, prior=0.5):
            if pair[1] == 1:
                raise CalibrationError("there is no calibration for visible/infrared")
            return super().probability(similarity, pair, prior)

    answer = Searcher(Extractor(), gallery, Half()).search(3, k=20)
    assert all((hit.probability is None) == (hit.record.modality == 1) for hit in answer.hits)
    assert answer.uncalibrated == "there is no calibration for visible/infrared"


def test_nobody_is_answered_below_the_threshold_of_each_modality(gallery):
    top = {m: max(float(r.vector @ unit(1, seed=6)[0]) for r in GIVEN if r.modality == m) for m in (0, 1)}

    def nobody(bars, **options):
        return Searcher(Extractor(), gallery, Calibrated(bars)).search(6, false_match_rate=0.05, **options).nobody

    above, below = {m: top[m] + 0.01 for m in top}, {m: top[m] - 0.01 for m in top}
    assert nobody(above) is True
    assert nobody(below) is False
    assert nobody({0: above[0], 1: below[1]}) is False and nobody({0: below[0], 1: above[1]}) is False
    # A record beyond the k that are shown counts too, and one that the filter hides does not.
    behind = 0 if top[0] < top[1] else 1
    assert nobody({behind: below[behind], 1 - behind: above[1 - behind]}, k=1) is False
    assert nobody({behind: below[behind], 1 - behind: above[1 - behind]}, where=Filter(modality=1 - behind)) is True
    assert nobody(above, marks=Marks(right=("r00001",))) is False
    assert nobody(above, where=Filter(cameras=("nowhere",))) is True
    strict = Searcher(Extractor(), gallery, Calibrated({m: top[m] - 0.05 for m in top}))
    assert strict.search(6, false_match_rate=0.001).nobody is True


def test_what_cannot_be_searched_is_said(gallery, searcher):
    with pytest.raises(SearchError, match="false-match rate needs a calibration"):
        searcher.search(1, false_match_rate=0.1)
    with pytest.raises(SearchError, match="no picture to search with"):
        searcher.search([])
    with pytest.raises(SettingsError, match="`combine`: expected mean or best, got 'median'"):
        searcher.search(1, combine="median")
    with pytest.raises(SettingsError, match="`shortlist`: expected whole number >= 1, got 0"):
        searcher.search(1, shortlist=0)
    with pytest.raises(SettingsError, match="`false_match_rate`: expected number > 0 and < 1 or null, got 2"):
        searcher.search(1, false_match_rate=2)
    with pytest.raises(SettingsError, match="`per_trak` is unknown; did you mean `per_track`"):
        searcher.search_records([GIVEN[0].id], per_trak=True)
    with pytest.raises(SettingsError, match="as an object and as keywords shortlist"):
        searcher.search(1, options=SearchOptions(), shortlist=5)
    with pytest.raises(SearchError, match="expected vectors"):
        searcher.search_vectors(unit(2), [0])
    with pytest.raises(GalleryError, match="length 2"):
        searcher.search_vectors(2 * unit(1), [0])
    with pytest.raises(GalleryError, match="number of hits"):
        searcher.search(1, k=0, rerank=KReciprocal())
    with pytest.raises(SearchError, match="no extractor"):
        Searcher(None, gallery).search(1)
    other = SimpleNamespace(bundle=SimpleNamespace(config=SimpleNamespace(digest="b" * 64)))
    with pytest.raises(GalleryError, match=r"bundle aaaaaaaaaaaa.*extractor is bundle bbbbbbbbbbbb"):
        Searcher(other, gallery)
    with pytest.raises(SearchError, match="calibration belongs to embedder bbbbbbbbbbbb"):
        Searcher(None, gallery, Calibrated(embedder="b" * 64))


def test_equal_hits_of_several_lists_are_merged_once(gallery):
    lists = gallery.search(np.concatenate([unit(1, seed=1), unit(1, seed=1)]), 7)
    assert best_of(lists) == lists[0]
    assert best_of([]) == [] and best_of([[], []]) == []
