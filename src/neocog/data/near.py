"""The same picture twice, also where it was changed on the way. Floor 1, room data; NumPy, torch.

`twins` knows pictures whose packed pixels are equal; here are also those that were saved again,
resized, cut, moved or shifted by up to a tenth, mirrored, brightened, recoloured, or made noisy.

Three steps: equal pixels; then every picture against every other by a coarse description (`Coarse`)
of which the best partners are kept; then these laid over each other (`glance`, `look`). What is
near enough is decided against the data itself: among digits, of which all ones look alike, a pair
must be far more alike than among photographs.

Time grows with the square of the number of pictures; 10,000 take some ten seconds of one core and
50,000 some eighty. Memory: some 25 kilobytes a picture at the peak, mostly for pairs, 1.4 GB for
50,000.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor

from neocog.data.likeness import PROMISING, Coarse, Glance, blank, glance, look, thumbnails
from neocog.geometry import noun

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from numpy.typing import NDArray

    from neocog.data.images import Images

    Tell = Callable[[str, int, int], None]

__all__ = ["Copies", "Pair", "copies", "together"]

PARTNERS, MOST_PARTNERS, LOOKS = 8, 32, 16_000
"""Partners of each picture that are looked at closely: of large sets the first, of smaller ones up
to the second, as long as there are about so many pairs in all."""
ALIKE = 0.9
"""Likeness of copies, at least. In CIFAR-10 all but one in some hundreds of changed copies reach
0.92, and of the pairs that are there anyway and reach it nearly all show one photograph."""
SHAPES = 0.85
"""Likeness of near copies at least, where what is the same all along a row or a column does not
count: ships on the horizon have that in common, and most of them are below 0.7 without it. None of
200 changed copies in CIFAR-10 was below this."""
CROWD = (2.0, 14.0)
"""Where unrelated pictures are alike, more is asked for: of the distance d that is usual between
them, at most CROWD[0] · d² or CROWD[1] · d³, whichever is more. The closer they lie the fewer ways
there are to differ, and the likelier a small distance is mere chance. Set on digits (d about 0.08)
and CIFAR-10 (0.2)."""
CLOSER = 0.25
"""Less than that does for a pair of which the distance is this share of what is usual about both of
its pictures."""
USUAL = 5
"""Which partner tells that distance: hardly any picture has so many copies."""
CLOSE = USUAL + 3
"""Partners of each picture, the most promising at first glance, that are looked at closely."""
_ROWS, _COLUMNS = 128, 4096
"""Pictures that are compared with each other at once."""
_SAMPLE = 256
"""Pictures that the threshold of the coarse step is taken from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Two samples that show one picture."""

    first: int
    """Id."""
    second: int
    """Id, of a later part or a greater one."""
    likeness: float
    """1 for equal pixels; else the correlation of their shapes where they fit best."""
    kind: Literal["exact", "near"]
    """Whether the packed pixels are equal."""
    mirrored: bool
    """Whether one is the mirror image of the other, left to right."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """All copies in a data set, or those between its parts."""

    pairs: tuple[Pair, ...]
    """Equal ones first, then the most alike. Of n samples with equal pixels, n − 1 pairs with the
    first of them."""
    clusters: tuple[tuple[int, ...], ...]
    """Ids that hang together by pairs, the largest first."""
    across: Mapping[str, int]
    """`train/val`: samples of val of which train has a copy. Only pairs of parts that have any."""
    threshold: float
    """Likeness that was asked for; less where a pair stood out."""


def copies(
    images: Images,
    splits: Mapping[str, Tensor],
    *,
    tell: Tell | None = None,
) -> Copies:
    """Find the copies among the pictures of all parts.

    Args:
        images: the pictures.
        splits: part → ids; others are not looked at.
        tell: told what is done, how much of it and of how much.

    Raises:
        ValueError: signals or volumes.
    """
    if images.sizes.shape[1] != 2:
        raise ValueError(f"copies are found of pictures, not {noun(tuple(images.sizes[0]))}s")
    parts = np.zeros(len(images), np.int64)
    for place, ids in enumerate(splits.values()):
        parts[ids.numpy()] |= 1 << place
    thumbs = thumbnails(images)
    groups = _equal(images, thumbs, parts)
    leaders = np.array(sorted(groups), np.int64)
    found = _search(thumbs[torch.from_numpy(leaders)], tell)
    near = [(int(leaders[a]), int(leaders[b]), like, turned) for a, b, like, turned in found.rows]
    return _told(groups, near, parts, tuple(splits), found.threshold)


def _equal(images: Images, thumbs: Tensor, parts: NDArray[np.int64]) -> dict[int, list[int]]:
    """The samples with equal pixels under the first of them."""
    flat = np.ascontiguousarray(thumbs.flatten(1).numpy())
    keys = flat.view(np.dtype((np.void, flat.shape[1])))[:, 0]
    rows = np.flatnonzero(parts)
    _, inverse, counts = np.unique(keys[rows], return_inverse=True, return_counts=True)
    groups: dict[int, list[int]] = {}
    seen: dict[bytes, int] = {}
    for row, many in zip(rows.tolist(), (counts[inverse] > 1).tolist(), strict=True):
        if not many:
            groups[row] = [row]
            continue
        pixels = images.picture(row)
        print_ = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).digest()
        groups.setdefault(seen.setdefault(print_, row), []).append(row)
    return groups


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """Near copies among pictures that all differ."""

    rows: list[tuple[int, int, float, bool]]
    """Places of both, likeness, mirrored; the most alike first."""
    threshold: float
    """Likeness that was asked for."""


def _search(thumbs: Tensor, tell: Tell | None) -> _Found:
    """Find near copies.

    Args:
        thumbs: N×S×S, uint8.
        tell: as for `copies`.
    """
    usable = np.flatnonzero(~blank(thumbs).numpy())
    first, second = _partners(thumbs, usable, tell)
    if not len(first):
        return _Found(rows=[], threshold=ALIKE)
    first, second, likeness, seen = _compared(thumbs, first, second, tell)
    threshold = _threshold(first, second, likeness)
    local = _local(first, second, likeness, len(thumbs))
    distance = 1 - likeness
    standing_out = (likeness >= ALIKE) & (distance <= CLOSER * np.fmin(local[first], local[second]))
    order = np.flatnonzero((likeness >= threshold) | standing_out)
    pairs = torch.from_numpy(first[order]), torch.from_numpy(second[order])
    shapes = look(thumbs, *pairs, _some(seen, order), stripes=False).numpy()
    order = order[shapes >= SHAPES]
    order = order[np.lexsort((second[order], first[order], -likeness[order]))]
    mirrored = seen.mirrored
    rows = [(int(first[i]), int(second[i]), float(likeness[i]), bool(mirrored[i])) for i in order]
    return _Found(rows=rows, threshold=threshold)


def _compared(
    thumbs: Tensor, first: NDArray[np.int64], second: NDArray[np.int64], tell: Tell | None
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64], Glance]:
    """Pairs, their likeness and where they fit.

    Only the most promising partners of a picture are looked at closely; of the others those stay
    in that are unlike at first glance.
    """
    done = 0

    def step(count: int) -> None:
        nonlocal done
        done += count
        if tell:
            tell("pairs", done, len(first))

    one, two = torch.from_numpy(first), torch.from_numpy(second)
    seen = glance(thumbs, one, two, step)
    likeness = seen.best.numpy().astype(np.float64)
    close = likeness >= PROMISING
    worth = close.copy()
    worth &= _ranked(first, likeness, CLOSE) | _ranked(second, likeness, CLOSE)
    rows = np.flatnonzero(worth)
    likeness[worth] = look(thumbs, one[rows], two[rows], _some(seen, rows)).numpy()
    kept = np.flatnonzero(worth | ~close)
    return first[kept], second[kept], likeness[kept], _some(seen, kept)


def _some(seen: Glance, rows: NDArray[np.int64]) -> Glance:
    """That of some pairs."""
    return Glance(
        best=seen.best[rows],
        mirrored=seen.mirrored[rows],
        side=seen.side[rows],
        place=seen.place[rows],
    )


def _partners(
    thumbs: Tensor,
    usable: NDArray[np.int64],
    tell: Tell | None,
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs that are worth a closer look, ids and ids."""
    coarse = Coarse(thumbs[torch.from_numpy(usable)])
    middle = coarse.middle(thumbs[torch.from_numpy(usable)])
    rows = np.arange(len(usable))
    limit = _limit(coarse, thumbs, usable, rows, middle)
    found: list[Tensor] = []
    scores: list[Tensor] = []
    for start in range(0, len(rows), _ROWS):
        some = torch.from_numpy(rows[start : start + _ROWS])
        moved = coarse.moved(thumbs[torch.from_numpy(usable)[some]])
        # Both ways round: what was moved may have a border that spoils its middle.
        for left in range(0, len(middle), _COLUMNS):
            best = _best(moved, middle[left : left + _COLUMNS])
            hit = (best > limit).nonzero()
            pair = torch.stack((some[hit[:, 0]], hit[:, 1] + left), 1)
            keep = pair[:, 0] != pair[:, 1]
            found.append(pair[keep])
            scores.append(best[hit[:, 0], hit[:, 1]][keep])
        if tell:
            tell("pictures", min(start + _ROWS, len(rows)), len(rows))
    if not found:
        nothing = np.zeros(0, np.int64)
        return nothing, nothing
    pairs, alike = _once(np.sort(torch.cat(found).numpy(), axis=1), torch.cat(scores).numpy())
    most = _many(len(rows))
    kept = _ranked(pairs[:, 0], alike, most) | _ranked(pairs[:, 1], alike, most)
    chosen = usable[pairs[kept]]
    return chosen[:, 0], chosen[:, 1]


def _once(
    pairs: NDArray[np.int64], alike: NDArray[np.float32]
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Each pair of M×2 once, in order, with the greatest likeness that was told of it."""
    order = np.lexsort((-alike, pairs[:, 1], pairs[:, 0]))
    pairs, alike = pairs[order], alike[order]
    new = np.ones(len(pairs), np.bool_)
    new[1:] = (pairs[1:] != pairs[:-1]).any(1)
    return pairs[new], alike[new]


def _many(count: int) -> int:
    """Partners of each of so many pictures."""
    return min(MOST_PARTNERS, max(PARTNERS, LOOKS // max(1, count)))


def _best(moved: Tensor, middle: Tensor) -> Tensor:
    """The greatest product over all places of the window: V×R×K and C×K give R×C."""
    best = moved[0] @ middle.T
    other = torch.empty_like(best)
    for one in moved[1:]:
        torch.mm(one, middle.T, out=other)
        torch.maximum(best, other, out=best)
    return best


def _limit(
    coarse: Coarse,
    thumbs: Tensor,
    usable: NDArray[np.int64],
    rows: NDArray[np.int64],
    middle: Tensor,
) -> float:
    """The coarse likeness that about twice as many reach as are kept of each picture."""
    wanted = 2 * _many(len(rows))
    if len(rows) == 0 or len(middle) <= wanted:
        return -2.0
    some = rows[:: max(1, len(rows) // _SAMPLE)][:_SAMPLE]
    moved = coarse.moved(thumbs[torch.from_numpy(usable[some])])
    best = [
        _best(moved, middle[left : left + _COLUMNS]).flatten()
        for left in range(0, len(middle), _COLUMNS)
    ]
    kept = min(wanted * len(some), sum(len(one) for one in best) - 1)
    shares = [one.topk(min(len(one), kept)).values for one in best]
    return float(torch.cat(shares).topk(kept).values[-1])


def _ranked(
    ids: NDArray[np.int64], scores: NDArray[np.floating[Any]], most: int
) -> NDArray[np.bool_]:
    """Which pairs are among the `most` best of the picture `ids`."""
    order = np.lexsort((-scores, ids))
    sorted_ids = ids[order]
    starts = np.searchsorted(sorted_ids, sorted_ids)
    kept = np.zeros(len(ids), np.bool_)
    kept[order] = np.arange(len(ids)) - starts < most
    return kept


def _local(
    first: NDArray[np.int64],
    second: NDArray[np.int64],
    likeness: NDArray[np.float64],
    count: int,
) -> NDArray[np.float64]:
    """Distance, 1 − likeness, of each picture's USUAL-th partner; NaN where it has fewer."""
    ids = np.concatenate((first, second))
    distance = 1 - np.concatenate((likeness, likeness))
    order = np.lexsort((distance, ids))
    ids, distance = ids[order], distance[order]
    place = np.searchsorted(ids, np.arange(count)) + USUAL - 1
    there = (place < len(ids)) & (ids[np.minimum(place, len(ids) - 1)] == np.arange(count))
    return np.where(there, distance[np.minimum(place, len(ids) - 1)], np.nan)


def _threshold(
    first: NDArray[np.int64], second: NDArray[np.int64], likeness: NDArray[np.float64]
) -> float:
    """The likeness to ask for, from the usual distance of pictures that are alike but no copies."""
    local = _local(first, second, likeness, int(max(first.max(), second.max())) + 1)
    known = local[~np.isnan(local)]
    if len(known) < 2 * USUAL:
        return ALIKE
    usual = float(np.median(known))
    return max(ALIKE, 1 - max(CROWD[0] * usual**2, CROWD[1] * usual**3))


def _told(
    groups: Mapping[int, list[int]],
    near: list[tuple[int, int, float, bool]],
    parts: NDArray[np.int64],
    names: tuple[str, ...],
    threshold: float,
) -> Copies:
    """Pairs of samples, clusters and counts from groups of equal samples and their near pairs."""
    pairs = []
    for leader, members in groups.items():
        for other in members[1:]:
            pairs.append(
                Pair(first=leader, second=other, likeness=1.0, kind="exact", mirrored=False)
            )
    links: dict[int, list[int]] = defaultdict(list)
    for a, b, like, turned in near:
        pairs.append(Pair(first=a, second=b, likeness=like, kind="near", mirrored=turned))
        links[a].append(b)
        links[b].append(a)
    masks = {one: int(np.bitwise_or.reduce(parts[members])) for one, members in groups.items()}
    numbers: dict[str, int] = {}
    for place, one in enumerate(names):
        for later in range(place + 1, len(names)):
            count = 0
            for leader, members in groups.items():
                seen = masks[leader]
                for other in links.get(leader, ()):
                    seen |= masks[other]
                if seen >> place & 1:
                    count += int((parts[members] >> later & 1).sum())
            if count:
                numbers[f"{one}/{names[later]}"] = count
    return Copies(
        pairs=tuple(pairs),
        clusters=together(pairs),
        across=numbers,
        threshold=threshold,
    )


def together(pairs: Sequence[Pair]) -> tuple[tuple[int, ...], ...]:
    """Ids that hang together by pairs, the largest group first."""
    parent: dict[int, int] = {}

    def root(one: int) -> int:
        while parent.setdefault(one, one) != one:
            parent[one] = parent[parent[one]]
            one = parent[one]
        return one

    for pair in pairs:
        a, b = root(pair.first), root(pair.second)
        parent[max(a, b)] = min(a, b)
    members: dict[int, list[int]] = defaultdict(list)
    for one in sorted(parent):
        members[root(one)].append(one)
    return tuple(sorted((tuple(m) for m in members.values()), key=lambda m: (-len(m), m)))
