"""Samplers: which rows of the table make each batch of an epoch; row i of both lines is the same person.

Only `UnpairedBatches` draws images without regard to who is seen, for networks that translate images.

`IdentityBatches` is the sampler of the AGW family (Ye et al., "Deep Learning for Person Re-identification: A Survey and
Outlook", TPAMI 2021; checked against mangye16/Cross-Modal-Re-ID-baseline). `Chunks` is that of MPANet (Wu et al.,
"Discover Cross-Modality Nuances for Visible-Infrared Person Re-Identification", CVPR 2021; checked against
DoubtedSteam/MPANet). Both consume numpy's legacy random stream in the published order, so that one seed gives the
published batches. `PivotPairs` follows the description of Hi-CMD's (Choi et al., "Hi-CMD: Hierarchical Cross-Modality
Disentanglement for Visible-Infrared Person Re-Identification", CVPR 2020).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import numpy as np

from vireid.data.table import Table
from vireid.declaration import Count, settings
from vireid.errors import DataError
from vireid.types import INFRARED, VISIBLE


def rows_of_pids(table: Table) -> tuple[dict[int, np.ndarray], dict[int, np.ndarray]]:
    """Rows of each pid, visible and infrared; both in order of first appearance, rows ascending.

    Raises DataError if a pid has images in one modality only.
    """
    by_modality: list[dict[int, np.ndarray]] = []
    for modality in (VISIBLE, INFRARED):
        rows = np.flatnonzero(table.modality == modality)
        order = rows[np.argsort(table.pid[rows], kind="stable")]
        pids, starts = np.unique(table.pid[order], return_index=True)
        by_pid = dict(zip(pids.tolist(), np.split(order, starts[1:]), strict=True)) if len(order) else {}
        by_modality.append(dict(sorted(by_pid.items(), key=lambda item: item[1][0])))
    visible, infrared = by_modality
    for missing, have, name in ((visible, infrared, "visible"), (infrared, visible, "infrared")):
        alone = sorted(set(have) - set(missing))
        if alone:
            listed = ", ".join(map(str, alone[:10])) + (f" and {len(alone) - 10} more" if len(alone) > 10 else "")
            to_do = f"Leave these out of the training split, or add their {name} images"
            if not infrared:
                to_do += "; pseudo_infrared=true trains on visible images alone"
            raise DataError(
                f"training needs every identity in both modalities; {len(alone)} of {len(table.pids)} have no {name} "
                f"image: pid {listed}. {to_do}"
            )
    return visible, infrared


def _check_enough(sampler: IdentityBatches | Chunks, available: int) -> None:
    if available < sampler.pids:
        raise DataError(
            f"a batch of {type(sampler).__name__} takes {sampler.pids} identities, the training rows have {available}; "
            f"set sampler.pids={available} or less, or train on more identities"
        )


@settings
class IdentityBatches:
    """`pids` identities without replacement, then `images` of each in each modality with replacement.

    An epoch has floor(max(visible, infrared images) / (pids * images)) + 1 batches: 696 on SYSU-MM01 and 65 on RegDB
    with the published 8 x 4.
    """

    pids: Count = 8
    """Identities of a batch."""
    images: Count = 4
    """Images of one identity in one modality."""

    def iterations(self, table: Table) -> int:
        """Number of batches in every epoch."""
        largest = max(int((table.modality == modality).sum()) for modality in (VISIBLE, INFRARED))
        return largest // (self.pids * self.images) + 1

    def epoch(self, table: Table, random: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield integer arrays (2, pids * images): line 0 visible rows, line 1 infrared rows, blocks of one person.

        Raises DataError if a pid is seen in one modality only or if there are fewer identities than a batch takes.
        """
        visible, infrared = rows_of_pids(table)
        _check_enough(self, len(visible))
        pids = np.array(sorted(visible))
        for _ in range(self.iterations(table)):
            rows = np.empty((2, self.pids, self.images), dtype=np.int64)
            for place, pid in enumerate(random.choice(pids, self.pids, replace=False).tolist()):
                rows[0, place] = random.choice(visible[pid], self.images)  # visible before infrared: published order
                rows[1, place] = random.choice(infrared[pid], self.images)
            yield rows.reshape(2, -1)


@settings
class Chunks:
    """Each person's images paired across the modalities, cut into chunks of `images` pairs, each chunk drawn once.

    Per identity, in order of the first infrared row: when both lists are shorter than `images` both are redrawn with
    replacement, otherwise the longer one is cut to the length of the shorter; both are shuffled and paired. A batch
    takes the next chunk of `pids` identities drawn without replacement; the epoch ends when fewer identities than that
    have chunks left, so its length varies a little (about 34 batches on RegDB with 12 x 5). It always runs to that end:
    the released code run with a later version of its training library stops at half.

    Deviation: where only one list is shorter than `images` that list is redrawn with replacement; the released code
    stops with an error there.
    """

    pids: Count = 16
    """Identities of a batch."""
    images: Count = 4
    """Images of one identity in one modality: half of the published "k"."""

    def epoch(self, table: Table, random: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield integer arrays (2, pids * images): line 0 visible rows, line 1 infrared rows, blocks of one person.

        Raises DataError if a pid is seen in one modality only or if there are fewer identities than a batch takes.
        """
        visible, infrared = rows_of_pids(table)
        _check_enough(self, len(visible))
        chunks = {pid: self._chunks(visible[pid], infrared[pid], random) for pid in infrared}
        taken = dict.fromkeys(chunks, 0)
        left = list(chunks)
        while len(left) >= self.pids:
            drawn = random.choice(left, self.pids, replace=False).tolist()
            yield np.concatenate([chunks[pid][taken[pid]] for pid in drawn], axis=1)
            for pid in drawn:
                taken[pid] += 1
            left = [pid for pid in left if taken[pid] < len(chunks[pid])]

    def _chunks(self, visible: np.ndarray, infrared: np.ndarray, random: np.random.RandomState) -> np.ndarray:
        """(chunks, 2, images) rows of one person."""
        # The order of the draws (infrared before visible) is that of the released code.
        if len(infrared) < self.images:
            infrared = random.choice(infrared, self.images)
        if len(visible) < self.images:
            visible = random.choice(visible, self.images)
        if len(infrared) > len(visible):
            infrared = random.choice(infrared, len(visible), replace=False)
        elif len(visible) > len(infrared):
            visible = random.choice(visible, len(infrared), replace=False)
        infrared, visible = infrared.copy(), visible.copy()
        random.shuffle(infrared)
        random.shuffle(visible)
        whole = len(visible) // self.images
        pairs = np.stack([visible, infrared])[:, : whole * self.images]
        return pairs.reshape(2, whole, self.images).transpose(1, 0, 2)


@settings
class PivotPairs:
    """A pivot image, its person and `pids` - 1 others with one image per modality, and negatives of further people.

    A batch has three rows per person: 3 k is translated person k, visible and infrared; the visible image of row 3 k
    + 1 and the infrared one of row 3 k + 2 are the negatives, of two more people each time ("apart": Hi-CMD's four
    further identities), or of one and the same ("shared", where there are few). The other image of such a row is
    unused. Any number of processes that divides `pids` shares a batch.

    Pivots are all images in random order, and again from the start where `batches`, the length of an epoch, is larger;
    the pivot is the image of person 0 in its modality. All other images are drawn with equal chance, so that a person
    may have a single one: the released code stops with an error there. That code also loads a second image per person
    and modality, which it never uses.
    """

    pids: Count = 2
    """Identities of a batch that are translated."""
    batches: Count = 1000
    """Batches of an epoch."""
    negatives: Literal["apart", "shared"] = "apart"
    """Negatives of one translated person: two further people (apart) or a single one (shared)."""

    def iterations(self, table: Table) -> int:
        """Number of batches in every epoch."""
        return self.batches

    def epoch(self, table: Table, random: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield integer arrays (2, 3 * pids): line 0 visible rows, line 1 infrared rows.

        Raises DataError if a pid is seen in one modality only or if there are fewer identities than a batch takes.
        """
        by_pid = rows_of_pids(table)
        further = self.pids * (2 if self.negatives == "apart" else 1)
        people = np.array(sorted(by_pid[VISIBLE]))
        if len(people) < self.pids + further:
            raise DataError(
                f"a batch of PivotPairs takes {self.pids + further} identities, the training rows have {len(people)}; "
                "set sampler.negatives=shared or fewer sampler.pids, or train on more identities"
            )
        pivots: list[int] = []
        for _ in range(self.batches):
            pivots = pivots or random.permutation(len(table)).tolist()
            pivot = pivots.pop()
            pid, modality = int(table.pid[pivot]), int(table.modality[pivot])
            others = random.choice(people[people != pid], self.pids - 1 + further, replace=False)
            translated = [pid, *others[: self.pids - 1].tolist()]
            chosen = others[self.pids - 1 :].reshape(self.pids, -1)[:, [0, -1]].tolist()
            order = [person for k in range(self.pids) for person in (translated[k], *chosen[k])]
            rows = np.array([[random.choice(by_pid[line][p]) for p in order] for line in (VISIBLE, INFRARED)])
            rows[modality, 0] = pivot
            yield rows


@settings
class UnpairedBatches:
    """`images` of each modality, of any people: row i of the two lines are as a rule different people.

    An epoch has `batches` batches, whatever the size of the set: image translation counts iterations. The images of a
    modality are shuffled, and shuffled again whenever all were drawn in an epoch.
    """

    images: Count = 4
    """Images of one modality in a batch."""
    batches: Count = 1000
    """Batches of an epoch."""

    def iterations(self, table: Table) -> int:
        """Number of batches in every epoch."""
        return self.batches

    def epoch(self, table: Table, random: np.random.RandomState) -> Iterator[np.ndarray]:
        """Yield integer arrays (2, images): line 0 visible rows, line 1 infrared rows.

        Raises DataError if a modality has no image.
        """
        lines: list[np.ndarray] = []
        count = self.batches * self.images
        for modality, name in ((VISIBLE, "visible"), (INFRARED, "infrared")):
            rows = np.flatnonzero(table.modality == modality)
            if not len(rows):
                raise DataError(
                    f"training needs images of both modalities, the training rows have no {name} image; "
                    "pseudo_infrared=true trains on visible images alone"
                )
            passes = [random.permutation(rows) for _ in range(-(-count // len(rows)))]  # as many as fill the epoch
            lines.append(np.concatenate(passes)[:count])
        yield from np.stack(lines).reshape(2, self.batches, self.images).swapaxes(0, 1)
