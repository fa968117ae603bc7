"""Labels that are doubtful: what networks and copies say against them. Floor 5, room verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neocog.data.near import together

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset
    from neocog.data.near import Copies
    from neocog.metrics.suspects import Suspects

__all__ = ["CERTAIN", "Judged", "Suspect", "conflicts", "ranked"]

CERTAIN = 0.96
"""Likeness of two pictures from which on they are taken for one, so that two labels of them cannot
both be right. Below it two pictures of one series are found, too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A label that is probably wrong."""

    id: int
    """Of the sample."""
    label: str
    """As given."""
    suggested: str
    """What it should be instead."""
    score: float
    """0…1: how unlikely the label is; 1 where a copy has another one."""
    twin: int | None = None
    """Id of a copy that has the suggested label; None: the networks say so."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """What networks said of samples that they had not seen."""

    ids: NDArray[np.int64]
    """M."""
    judged: Suspects
    """What their answers say about the labels."""
    probabilities: NDArray[Any]
    """M×K; the answers."""
    model: str
    """Name of the network; empty where it is the one that was trained."""

    def rows(self) -> dict[int, int]:
        """Row of each id."""
        return {int(one): row for row, one in enumerate(self.ids)}


def conflicts(data: Dataset, doubles: Copies) -> list[Suspect]:
    """Copies of one picture with two labels: one of them is wrong, of more than two the minority.

    Only pairs that are `CERTAIN` count.

    Args:
        data: of classes.
        doubles: its copies.
    """
    labels = data.targets
    pairs = [one for one in doubles.pairs if one.likeness >= CERTAIN]
    votes: dict[int, list[int]] = {}
    for cluster in together(pairs):
        kinds = torch.bincount(labels[list(cluster)], minlength=len(data.classes)).tolist()
        for one in cluster:
            votes[one] = kinds
    found: dict[int, Suspect] = {}
    for pair in pairs:
        a, b = pair.first, pair.second
        if labels[a] == labels[b]:
            continue
        for one, other in ((a, b), (b, a)):
            mine, theirs = int(labels[one]), int(labels[other])
            minor = votes[one][mine] <= votes[one][theirs]
            if minor and one not in found:
                found[one] = Suspect(
                    id=one,
                    label=data.classes[mine],
                    suggested=data.classes[theirs],
                    score=1.0,
                    twin=other,
                )
    return list(found.values())


def ranked(data: Dataset, contradicted: Sequence[Suspect], told: Judged) -> list[Suspect]:
    """All samples, the most suspicious first: contradicted by a copy, then by the networks.

    Of two copies that contradict each other the one is told of of which the networks think less;
    the other takes its place among all the rest.

    Args:
        data: of classes.
        contradicted: what `conflicts` found.
        told: what networks said.
    """
    row, judged = told.rows(), told.judged
    scores = {
        one.id: float(judged.scores[row[one.id]]) if one.id in row else 0.0 for one in contradicted
    }
    first = []
    for one in contradicted:
        rival = one.twin if one.twin in scores else None
        if rival is None or (scores[one.id], -one.id) >= (scores[rival], -rival):
            first.append(one)
    first.sort(key=lambda one: (-scores[one.id], one.id))
    taken = {one.id for one in first}
    rest = [
        Suspect(
            id=int(told.ids[place]),
            label=data.classes[int(data.targets[told.ids[place]])],
            suggested=data.classes[int(judged.suggested[place])],
            score=float(judged.scores[place]),
        )
        for place in judged.order
        if int(told.ids[place]) not in taken
    ]
    return first + rest
