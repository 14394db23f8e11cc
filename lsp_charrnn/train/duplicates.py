"""Near-duplicates among more files than fit into memory, by the MinHash of the `datasketch` library.

What is hashed are a file's telling lines (see `corpus`), so a signature estimates which share of the lines of two
files together is in both (Jaccard). Signatures that agree in a band of eight values are compared in full: a pair
that is 80 % alike is found with a probability of 95 %, one that is 90 % alike practically always (Leskovec,
Rajaraman and Ullman, Mining of Massive Datasets, chapter 3). The bands are kept as numbers in arrays and not in the
library's own index: that one takes 6 kB of memory a file, more than the file's text.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Set
from functools import cache
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from lsp_charrnn.train.corpus import NEAR_DUPLICATE_SHARE

PERMUTATIONS: Final = 128
BANDS: Final = 16
_MOST_COMPARED: Final = 64  # of the files in one band's bucket: what all share, a licence, makes nothing quadratic

Signature = npt.NDArray[np.uint32]  # [PERMUTATIONS]


@cache
def _empty() -> Any:
    from datasketch import MinHash

    # All that the result hangs on is said here, so that no release of the library changes it: lines are hashed already.
    return MinHash(num_perm=PERMUTATIONS, seed=1, hashfunc=int, scheme="affine32")


def signature(lines: Set[int]) -> Signature:
    """Return the MinHash of a file's telling lines, which are numbers below 2**32.  # [PERMUTATIONS]"""
    sketch = _empty().copy()
    if lines:
        sketch.update_batch(lines)
    return np.asarray(sketch.hashvalues, dtype=np.uint32)


def near_duplicates(signatures: npt.NDArray[np.uint32]) -> npt.NDArray[np.bool_]:
    """Say of each file, in order, whether it is nearly one that was kept before it.  # [files]

    `signatures` is [files, PERMUTATIONS]. What is itself a near-duplicate is no reason to drop another.
    """
    files = len(signatures)
    dropped = np.zeros(files, dtype=np.bool_)
    buckets = np.full((files, BANDS), -1, dtype=np.int32)  # -1: nobody else is in it
    rows = PERMUTATIONS // BANDS
    for band in range(BANDS):
        values = np.ascontiguousarray(signatures[:, band * rows : (band + 1) * rows])
        _, bucket, size = np.unique(values.view(f"V{4 * rows}")[:, 0], return_inverse=True, return_counts=True)
        shared = size[bucket] > 1
        buckets[shared, band] = bucket[shared]
    kept: defaultdict[tuple[int, int], list[int]] = defaultdict(list)
    for file in np.flatnonzero((buckets >= 0).any(axis=1)).tolist():
        places = [(band, bucket) for band, bucket in enumerate(buckets[file].tolist()) if bucket >= 0]
        candidates = sorted({other for place in places for other in kept[place]})
        alike = (signatures[candidates] == signatures[file]).mean(axis=1) if candidates else np.zeros(0)
        if (alike >= NEAR_DUPLICATE_SHARE).any():
            dropped[file] = True
            continue
        for place in places:
            if len(kept[place]) < _MOST_COMPARED:
                kept[place].append(file)
    return dropped
