"""Which labels are probably wrong. Floor 1, room metrics.

Confident learning (Northcutt, Jiang and Chuang 2021, "Confident Learning: Estimating Uncertainty in
Dataset Labels", JAIR 70, arXiv 1911.00068). The probabilities must be out of sample: from networks
that never saw the sample that they answer for.

A network is not equally sure of all classes, so what counts as sure is the class's own mean: t_k,
the mean probability of class k over the samples that are labelled k. A sample labelled i whose
probability of some classes lies above their t_k is counted for the likeliest of them, j. Those
counted for another class than their label estimate how many labels are wrong; where networks are
often wrong, their mistakes are among them, and the number is too high (some 1,250 for 100, of
10,000 pictures of CIFAR-10), so it is a bound that people are told. Samples are ranked by how
unlikely their label is ("self-confidence"). On 10,000 pictures of CIFAR-10 with 100 flipped labels
and networks that are right in 77 of 100 cases, 87 of the flips were among the first 500; by the
margin between the likeliest class and the label, 73.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neocog.metrics.intervals import wilson_bounds

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = ["Suspects", "suspects"]

BELOW = np.arange(0.05, 1.0, 0.05)
"""Shares of the wrong answers that the number of wrong labels is bounded by."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspects:
    """N samples, judged."""

    order: NDArray[np.int64]
    """N; rows, the most suspicious first."""
    scores: NDArray[np.float64]
    """N, 0…1: how unlikely the label is, 1 − p."""
    suggested: NDArray[np.int64]
    """N; the likeliest class beside the label."""
    confident: NDArray[np.bool_]
    """N; whether confident learning counts the sample as an error."""
    errors: float
    """Estimated number of wrong labels, with the joint distribution brought to the counts of the
    labels."""
    most: float
    """Wrong labels, at most, were each wrong by chance: see `_most`."""
    joint: NDArray[np.float64]
    """K×K; estimated share of samples with label i (row) and true class j (column); sums to 1."""


def suspects(probabilities: ArrayLike, labels: ArrayLike) -> Suspects:
    """Judge labels by what networks say that never saw them.

    Args:
        probabilities: N×K, out of sample.
        labels: N, in 0…K−1; a class may have no samples, and is then never suggested by counting.

    Raises:
        ValueError: shapes that do not fit, labels out of range, or numbers that are not finite.

    >>> sure = [[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95]]
    >>> found = suspects(sure, [0, 0, 1, 1, 0])
    >>> int(found.order[0]), int(found.suggested[4]), found.confident.tolist()
    (4, 1, [False, False, False, False, True])
    """
    p, y = np.asarray(probabilities, np.float64), np.asarray(labels, np.int64)
    if p.ndim != 2 or y.shape != p.shape[:1]:
        raise ValueError(f"expected N×K probabilities and N labels, found {p.shape} and {y.shape}")
    n, classes = p.shape
    if not np.isfinite(p).all() or (n and not 0 <= y.min() <= y.max() < classes):
        raise ValueError(f"expected finite probabilities and labels in 0…{classes - 1}")
    rows = np.arange(n)
    own = p[rows, y]
    counts = np.bincount(y, minlength=classes)
    sums = np.bincount(y, weights=own, minlength=classes)
    # A class without samples has no threshold, and nothing can pass it.
    usual = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    above = p >= usual
    guess = np.where(above, p, -np.inf).argmax(axis=1)
    counted = np.asarray(above.any(axis=1))
    confident = np.logical_and(counted, guess != y)
    joint = _joint(y, guess, counted, counts, classes)
    others = p.copy()
    others[rows, y] = -np.inf
    suggested = others.argmax(axis=1) if classes > 1 else y.copy()
    # Among equals, the sample with the likelier other class; then the order of the samples.
    order = np.lexsort((rows, -others.max(axis=1, initial=-np.inf), own)).astype(np.int64)
    return Suspects(
        order=order,
        scores=1 - own,
        suggested=suggested.astype(np.int64),
        confident=confident,
        errors=float(n * (1 - np.trace(joint))) if n else 0.0,
        most=_most(own, others),
        joint=joint,
    )


def _most(own: NDArray[np.float64], others: NDArray[np.float64]) -> float:
    """Upper bound of the number of wrong labels, were each drawn among the other classes.

    A wrong label is then as likely to a network as any class that a picture is not of: if a share q
    of those lies below some probability, so does q of the wrong labels, and all the labels below it
    are no fewer. Labels below / q thus bounds the wrong ones, whatever the network's own mistakes
    are; the least of these bounds holds (Blanchard, Lee and Scott 2010, "Semi-Supervised Novelty
    Detection", JMLR 11), each with the upper end of its 95 % interval.

    Args:
        own: N, probability of the label.
        others: N×K, probabilities, −∞ for the label.
    """
    wrong = np.sort(others[np.isfinite(others)])
    if not len(wrong):
        return 0.0
    n = len(own)
    limits = np.quantile(wrong, BELOW, method="higher")
    share = np.searchsorted(wrong, limits, side="right") / len(wrong)
    below = np.searchsorted(np.sort(own), limits, side="right")
    _, upper = wilson_bounds(below, np.full(len(limits), n))
    return float(n * min(1.0, (upper / share).min()))


def _joint(
    labels: NDArray[np.int64],
    guess: NDArray[np.int64],
    counted: NDArray[np.bool_],
    counts: NDArray[np.int64],
    classes: int,
) -> NDArray[np.float64]:
    """Share of each pair of label and true class: the confident counts, each row brought to the
    number of samples that have the label (equation 3 of the paper)."""
    joint = np.zeros((classes, classes))
    np.add.at(joint, (labels[counted], guess[counted]), 1.0)
    rows = joint.sum(axis=1)
    # A label of which no sample is sure: nothing speaks against it.
    empty = rows == 0
    joint[empty, empty] = 1.0
    joint[empty] = np.diag(empty.astype(float))[empty]
    joint *= (counts / np.maximum(joint.sum(axis=1), 1e-300))[:, None]
    return joint / max(1, len(labels))
