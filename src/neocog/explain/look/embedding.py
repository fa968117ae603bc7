"""Where pictures lie in what a network makes of them last. Floor 1, explain; imports floor 0,
NumPy, torch, `analysis`, and scikit-learn where t-SNE is asked for.

What goes into the output layer is all that the answer is made of: pictures that lie together there
are the same to the network.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from neocog import chance
from neocog.analysis.trace import trace
from neocog.analysis.twin import copied, own_chance, place
from neocog.errors import ConfigError, DataError, NeocogError
from neocog.explain.look.operand import Operand, input_of, last_product

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from numpy.typing import NDArray
    from torch import Tensor, nn

__all__ = ["MOST", "Features", "Principal", "features", "principal", "sampled", "tsne"]

MOST = 2000
"""Points that t-SNE is asked for at most: it takes some 10 s for so many on two cores."""
_DENOISED = 50
"""Principal components that t-SNE starts from (van der Maaten and Hinton 2008, section 4.2)."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Features:
    """What went into the output layer."""

    layer: str
    """Path of the module that it belongs to; empty: the network itself."""
    ids: NDArray[np.int64]
    """N, of the pictures."""
    values: NDArray[np.float32]
    """N×D; of maps the means over all positions."""


def features(
    module: nn.Module,
    batches: Iterable[tuple[Sequence[int] | Tensor, Tensor]],
    *,
    layer: str = "",
    pictures: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> Features:
    """What goes into the output layer, for each picture.

    The output layer is the last operation with weights that the answer depends on, by the graph of
    what ran. Held: N×D numbers of 4 bytes, and one batch.

    Args:
        module: a network of pictures; a copy of it runs, as in use.
        batches: ids of pictures and the pictures, B×C×H×W as the network takes them, all of one
            size.
        layer: path of a module whose input to take in its place: its first argument, when it runs
            last.
        pictures: how many there will be, told to `progress`.
        progress: told how many pictures of how many are done.

    Raises:
        TraceError: the network does not take the pictures.
        ConfigError: no such module, or the network has no weights.
        DataError: no pictures, or ids that are not one for each.
        NeocogError: the features are not finite, or not one row for each picture.
    """
    twin = copied(module)
    device, dtype = place(twin)
    ahead = iter(batches)
    first = next(ahead, None)
    if first is None or not len(first[1]):
        raise DataError("expected pictures, found none")
    operand: Operand | None = None
    if not layer:
        graph = trace(twin, torch.empty_like(first[1][:1], dtype=dtype, device="meta"))
        operand = last_product(graph)
    found: list[NDArray[np.float32]] = []
    numbers: list[NDArray[np.int64]] = []
    done = 0
    with own_chance(device, chance.key(0, "features")), torch.no_grad():
        for given, x in itertools.chain([first], ahead):
            ids = torch.as_tensor(given, dtype=torch.int64).cpu()
            if ids.shape != (len(x),):
                raise DataError(f"expected {len(x)} ids for as many pictures, found {len(ids)}")
            read = input_of(twin, x.to(device, dtype), operand if operand is not None else layer)
            found.append(_rows(read, len(x)))
            numbers.append(ids.numpy())
            done += len(x)
            if progress:
                progress(done, pictures or done)
    return Features(
        layer=operand.layer if operand is not None else layer,
        ids=np.concatenate(numbers),
        values=np.concatenate(found),
    )


def _rows(read: Tensor, count: int) -> NDArray[np.float32]:
    """B×D of B×D, or of maps B×D×….

    Raises:
        NeocogError: other shapes, or numbers that are not finite.
    """
    if read.dim() < 2 or len(read) != count:
        raise NeocogError(
            f"expected one row of features for each of {count} pictures, found "
            f"{tuple(read.shape)} before the output layer",
            "name a layer whose input has the pictures along its first axis",
        )
    rows = read.float().flatten(2).mean(2) if read.dim() > 2 else read.float()
    if not rows.isfinite().all():
        raise NeocogError("the features are not finite", "a network that diverged embeds nothing")
    answer: NDArray[np.float32] = rows.cpu().numpy().copy()
    return answer


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Principal:
    """Principal components."""

    places: NDArray[np.float64]
    """N×k, each point along the components, around 0."""
    explained: NDArray[np.float64]
    """k, the share of the variance along each."""
    components: NDArray[np.float64]
    """k×D, orthonormal; the largest entry of each is positive."""
    mean: NDArray[np.float64]
    """D, taken off the points first."""


def principal(values: NDArray[np.floating], k: int = 2) -> Principal:
    """The k directions along which points spread most (Pearson 1901), by singular values.

    Args:
        values: N×D.
        k: components; those beyond min(N − 1, D) have no variance, and are 0.

    Raises:
        ConfigError: no N×D of at least 2 points, or not finite.
    """
    points = _points(values, 2)
    mean = points.mean(0)
    centred = points - mean
    # Of many points, the triangle of a QR factorisation has the same components.
    small = np.linalg.qr(centred, mode="r") if len(points) > 2 * points.shape[1] else centred
    _, singular, rows = np.linalg.svd(small, full_matrices=False)
    largest = np.take_along_axis(rows, np.abs(rows).argmax(1)[:, None], 1)
    rows = rows * np.where(largest < 0, -1.0, 1.0)
    variance = np.square(singular)
    total = variance.sum()
    shares = variance / total if total > 0 else np.zeros_like(variance)
    real = min(k, len(points) - 1, len(rows))
    components, explained = np.zeros((k, points.shape[1])), np.zeros(k)
    components[:real], explained[:real] = rows[:real], shares[:real]
    return Principal(
        places=centred @ components.T, explained=explained, components=components, mean=mean
    )


def tsne(
    values: NDArray[np.floating], *, perplexity: float = 30.0, seed: int = 0
) -> NDArray[np.float64]:
    """Places in the plane such that neighbours stay neighbours, N×2 (van der Maaten and Hinton
    2008). Distances between far groups and the sizes of groups mean nothing.

    It starts from the principal components, so that the large structure is theirs (Kobak and Berens
    2019), and is told the first 50 alone.

    Args:
        values: N×D.
        perplexity: about how many neighbours count; at most (N − 1) / 3.
        seed: of what chance is left.

    Raises:
        ConfigError: fewer than 5 points, more than `MOST`, or not finite.
    """
    from sklearn.manifold import TSNE
    from threadpoolctl import threadpool_limits  # comes with scikit-learn

    points = _points(values, 5)
    if len(points) > MOST:
        raise ConfigError(
            f"expected at most {MOST} points, found {len(points)}", "draw some with `sampled`"
        )
    told = principal(points, min(_DENOISED, *points.shape)).places
    if not np.ptp(told):
        return np.zeros((len(points), 2))  # all points are one
    made = TSNE(
        2,
        perplexity=min(perplexity, (len(points) - 1) / 3),
        init="pca" if told.shape[1] > 1 else "random",
        learning_rate="auto",
        random_state=chance.key(seed, "t-sne"),
    )
    # With several threads, each of its thousand steps waits for the slowest; where others are at
    # work, that is twenty times as long.
    with threadpool_limits(1):
        found = made.fit_transform(told.astype(np.float32))
    places: NDArray[np.float64] = found.astype(np.float64)
    return places


def sampled(count: int, most: int = MOST, seed: int = 0) -> NDArray[np.int64]:
    """Which of so many points to show: all, or `most` drawn at random, in order."""
    ids = np.arange(count, dtype=np.int64)
    order = np.argsort(chance.draw(chance.key(seed, "embedding"), ids), kind="stable")
    kept: NDArray[np.int64] = np.sort(order[:most])
    return kept


def _points(values: NDArray[np.floating], least: int) -> NDArray[np.float64]:
    points = np.asarray(values, dtype=np.float64)
    if points.ndim != 2 or len(points) < least or not points.shape[1]:
        raise ConfigError(f"expected at least {least} points N×D, found {points.shape}")
    if not np.isfinite(points).all():
        raise ConfigError("expected finite features, found NaN or infinity")
    return points
