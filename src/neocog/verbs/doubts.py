"""Labels that are doubtful: what networks and copies say against them. Floor 5, room verbs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from neocog.data.near import Copies, copies, together
from neocog.metrics.suspects import suspects

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neocog.data.dataset import Dataset
    from neocog.metrics.suspects import Suspects
    from neocog.verbs.console import Console

__all__ = ["CERTAIN", "Judged", "Suspect", "conflicts", "ranked", "suspects_of"]

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


def suspects_of(
    data: Dataset,
    part: str,
    probabilities: NDArray[Any],
    *,
    console: Console | None = None,
    search: bool = True,
) -> tuple[list[Suspect], Copies | None]:
    """What a finished training says about the labels of a part that it did not learn from.

    Costs a search for copies across parts, by the product of their sizes, and no training.

    Args:
        data: of classes.
        part: `val` or `test`.
        probabilities: M×K, the network's answers for `data.splits[part]`, in that order.
        console: shows how far it is.
        search: whether to look for copies across parts.

    Returns:
        Samples for which the network is sure of another class, the surest first, those behind that
        have a copy of another label; and the copies across parts.
    """
    tell = console.progress if console else None
    doubles = None
    if search and len(data.size) == 2 and len(data.splits) > 1:
        doubles = copies(data.images, data.splits, across=True, tell=tell)
    ids = data.splits[part].numpy()
    judged = suspects(probabilities, data.targets[data.splits[part]].numpy())
    told = Judged(ids=ids, judged=judged, probabilities=np.asarray(probabilities), model="")
    found = conflicts(data, doubles, of=set(ids.tolist())) if doubles else []
    sure = set(ids[judged.confident].tolist())
    order = ranked(data, found, told)
    return [one for one in order if one.twin is not None or one.id in sure], doubles


def conflicts(data: Dataset, doubles: Copies, of: set[int] | None = None) -> list[Suspect]:
    """Copies of one picture with two labels: one of them is wrong, of more than two the minority.

    Only pairs that are `CERTAIN` count.

    Args:
        data: of classes.
        doubles: its copies.
        of: ids that are asked about; None: all.
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
            if minor and one not in found and (of is None or one in of):
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
