"""An evaluator that walks one ranked list at a time, written from the protocol's words alone: the tests' yardstick."""

from __future__ import annotations

import numpy as np


def slow_figures(similarity, query_pid, gallery_pid, ignored=None, cmc_over_pids=False, length=20):
    """cmc (length,), mAP, mINP and the number of valid queries; among equal similarities wrong images come first."""
    found, average_precision, inverse_penalty = [], [], []
    for q, pid in enumerate(query_pid):
        listed = [g for g in range(len(gallery_pid)) if ignored is None or not ignored[q][g]]
        listed.sort(key=lambda g: (-similarity[q][g], gallery_pid[g] == pid))
        right = [place for place, g in enumerate(listed, 1) if gallery_pid[g] == pid]
        if not right:
            continue
        average_precision.append(np.mean([j / place for j, place in enumerate(right, 1)]))
        inverse_penalty.append(len(right) / right[-1])
        if cmc_over_pids:
            people = list(dict.fromkeys(gallery_pid[g] for g in listed))
            found.append(people.index(pid) + 1)
        else:
            found.append(right[0])
    cmc = [np.mean([place <= k for place in found]) for k in range(1, length + 1)]
    return np.array(cmc), np.mean(average_precision), np.mean(inverse_penalty), len(found)
