"""Okapi BM25 over a fixed set of texts: the lexical baseline and a source of hard negatives."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import sparse

K1, B = 1.2, 0.75


def words(text: str) -> list[str]:
    """Lower-case words, with the plural ending taken off."""
    return [_stem(word) for word in re.findall(r"[a-z0-9]+", text.lower())]


def _stem(word: str) -> str:
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        return word[:-1]
    return word


class Bm25:
    """An index of texts; `scores` ranks all of them for a query."""

    def __init__(self, texts: Sequence[str]) -> None:
        counts = [Counter(words(text)) for text in texts]
        self._columns = {word: i for i, word in enumerate(sorted({w for c in counts for w in c}))}
        lengths = np.array([sum(c.values()) for c in counts], dtype=np.float64)
        norm = K1 * (1 - B + B * lengths / lengths.mean())
        rows, columns, values = [], [], []
        for row, count in enumerate(counts):
            for word, n in count.items():
                rows.append(row)
                columns.append(self._columns[word])
                values.append(n * (K1 + 1) / (n + norm[row]))
        shape = (len(texts), len(self._columns))
        weights = sparse.csc_matrix((values, (rows, columns)), shape=shape)
        frequency = np.diff(weights.indptr)
        idf = np.log(1 + (len(texts) - frequency + 0.5) / (frequency + 0.5))
        self._weights = (weights @ sparse.diags(idf)).tocsc()

    def scores(self, query: str) -> npt.NDArray[np.float64]:
        """The BM25 score of each text, shape (texts,)."""
        columns = [self._columns[w] for w in sorted(set(words(query))) if w in self._columns]
        return np.asarray(self._weights[:, columns].sum(axis=1)).ravel()
