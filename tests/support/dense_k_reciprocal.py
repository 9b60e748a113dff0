"""k-reciprocal re-ranking as the textbook has it: whole N x N matrices and one image at a time; the yardstick."""

from __future__ import annotations

import numpy as np


def dense_k_reciprocal(query, gallery, k1=20, k2=6, weight=0.3):
    """Final distance (Q, G) from vectors (Q, D), (G, D), by the equations of Zhong et al., CVPR 2017, one by one."""
    x = np.concatenate([query, gallery])
    squares = (x * x).sum(1)
    distance = np.maximum(squares[:, None] + squares[None, :] - 2 * x @ x.T, 0)
    distance = distance / distance.max(axis=1, keepdims=True)
    order = np.argsort(distance, axis=1)

    def reciprocal(i, k):
        nearest = order[i, : k + 1]
        return nearest[[i in order[j, : k + 1] for j in nearest]]

    v = np.zeros_like(distance)
    for i in range(len(x)):
        mine = reciprocal(i, k1)
        parts = [mine]
        for candidate in mine:
            theirs = reciprocal(candidate, int(np.around(k1 / 2)))
            if len(np.intersect1d(theirs, mine)) > 2 / 3 * len(theirs):
                parts.append(theirs)
        members = np.unique(np.concatenate(parts))
        v[i, members] = np.exp(-distance[i, members])
        v[i] /= v[i].sum()
    if k2 > 1:
        v = np.stack([v[order[i, :k2]].mean(axis=0) for i in range(len(x))])
    sharers = [np.flatnonzero(v[:, c]) for c in range(len(x))]
    final = np.empty((len(query), len(x)), dtype=distance.dtype)
    for i in range(len(query)):
        shared = np.zeros(len(x), dtype=distance.dtype)
        for c in np.flatnonzero(v[i]):
            shared[sharers[c]] += np.minimum(v[i, c], v[sharers[c], c])
        final[i] = (1 - shared / (2 - shared)) * (1 - weight) + distance[i] * weight
    return final[:, len(query) :]
