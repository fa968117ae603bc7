"""Pictures, signals and volumes in arrays. Floor 1, room data; imports floor 0 and NumPy.

Pictures have two axes beside their channels, signals one, volumes three. How many an array has is
said (`dims` in the file, `data.dims` in the recipe) or follows from five axes; it is never guessed.
Signals and volumes are kept as they are stored, in a type of `records.FULL_SCALE`: no size is
changed and no value is rounded.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.errors import DataError
from neocog.geometry import LAYOUTS, noun, size_text
from neocog.records import FULL_SCALE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from numpy.typing import NDArray

__all__ = ["blocks", "moments", "rank", "rows", "told"]

_ROWS = 1024
_VALUES = 1 << 22
"""Numbers that are looked at together."""
_CHANNELS = 4
"""A last axis of at most so many is rather the channels of one picture than the width of many."""
STD_FLOOR = 1e-3
"""Smallest standard deviation that normalisation divides by, as a share of the largest value: a
constant channel would divide by zero otherwise."""


def rank(
    arrays: Iterable[NDArray[Any]], told: NDArray[Any] | None, asked: int | None, where: str
) -> int:
    """Axes of a sample beside its channels.

    Args:
        arrays: the samples of all parts.
        told: the array `dims` of the file, where there is one.
        asked: what the caller wants.
        where: the file, for errors.

    Raises:
        DataError: the file says something else than was asked for, or nothing that is a rank.

    >>> rank([np.zeros((5, 28, 28))], None, None, ""), rank([np.zeros((5, 99))], np.array(1), 1, "")
    (2, 1)
    >>> rank([np.zeros((5, 16, 16, 16, 1))], None, None, "")
    3
    """
    if told is not None:
        if told.size != 1 or told.dtype.kind not in "iu" or int(told.reshape(())) not in LAYOUTS:
            raise DataError(
                f"{where}: dims: expected 1, 2 or 3, found {told.dtype} of shape {told.shape}"
                + (f", {told.reshape(())!s:.20}" if told.size == 1 else ""),
                "it says how many axes a sample has beside its channels: numpy.savez(…, dims=1)",
            )
        found = int(told.reshape(()))
        if asked not in (None, found):
            have, want = (f"{noun((0,) * dims)}s" for dims in (found, asked))
            whole = "" if found == 2 else f"{have} come whole, data.size is for pictures: "
            raise DataError(
                f"{where}: the file holds {have} (dims={found}), {want} (dims={asked}) are wanted "
                "here",
                f"{whole}leave out data.size and data.dims; a trained network takes only what it "
                "was trained on",
            )
        return found
    if asked is not None:
        return asked
    return 3 if any(array.ndim == 5 for array in arrays) else 2


def rows(x: NDArray[Any], size: tuple[int, ...], channels: int, where: str) -> NDArray[Any]:
    """The samples in an array that a network is asked about, one a row: it may be one sample.

    One picture of the network's own shape is H×W×C, C×H×W or, grey, H×W; a signal or a volume
    alike, without its axis of channels only where there is one channel. Several have one axis more,
    and several grey pictures of any size may come as N×H×W. Three axes are one picture or several,
    never a guess: a last axis of at most 4 is no width of pictures, and of a network that takes
    three channels an array of three grey pictures could be one in colour.

    Args:
        x: an array of numbers.
        size: of the network's input.
        channels: of the network's input.
        where: the file, for errors.

    Returns:
        N×…; a view.

    Raises:
        DataError: samples of another rank or with other channels, or one picture as well as
            three.

    >>> rows(np.zeros((32, 32, 3)), (32, 32), 3, "").shape, rows(np.zeros(9), (9,), 1, "").shape
    ((1, 32, 32, 3), (1, 9))
    """
    shape = x.shape
    several = _several(shape, size, channels)
    if several and len(size) == 2 and x.ndim == 3 and 1 != channels == shape[0]:
        raise DataError(
            f"{where}: x: the shape {shape} can be read as one picture C×H×W and as {shape[0]} "
            "grey ones",
            f"for one save x[numpy.newaxis], for {shape[0]} grey ones x[..., numpy.newaxis]",
        )
    if several and shape[1:] == size:
        return x
    alone = {(*size, channels), (channels, *size)}
    if channels == 1 or len(size) == 2:
        alone.add(size)
    if shape in alone:
        return x[np.newaxis]
    if not several:
        last = "×".join(["N", *LAYOUTS[len(size)].split("×")[1:], "C"])
        raise DataError(
            f"{where}: x: expected {noun(size)}s {last} for a network of "
            f"{size_text((*size, channels))}, found {shape}",
            "save one sample a row; one alone as x[numpy.newaxis]",
        )
    return x


def _several(shape: tuple[int, ...], size: tuple[int, ...], channels: int) -> bool:
    """Whether these are samples for a network, one a row."""
    if len(shape) == len(size) + 2:
        return bool({shape[1], shape[-1]} & ({1, 3} if len(size) == 2 else {channels}))
    if len(shape) != len(size) + 1:
        return False
    if len(size) == 2:
        return shape[2] >= min(size[1], _CHANNELS + 1)
    return channels == 1


def blocks(
    x: Mapping[str, NDArray[Any]], dims: int, channels: int | None, where: str
) -> dict[str, NDArray[Any]]:
    """Signals as N×L×C or volumes as N×D×H×W×C, in a type of `FULL_SCALE`.

    Args:
        x: arrays by split: N×L, N×L×C or N×C×L; N×D×H×W, N×D×H×W×C or N×C×D×H×W. The axis of the
            channels is the one that has `channels`, or else at most half the length of the other.
        dims: 1 or 3.
        channels: how many there are, where that is known.
        where: the file, for errors.

    Raises:
        DataError: other shapes, parts that differ, an axis that could be either, another type, NaN
            or infinity.
    """
    if len({array.shape[1:] for array in x.values()}) > 1:
        told = ", ".join(f"{split or 'x'}: {array.shape}" for split, array in x.items())
        raise DataError(
            f"{where}: x: expected {noun((0,) * dims)}s of one size in all parts, found {told}",
            "cut them or fill them up to one size",
        )
    done = {split: _last(_typed(array, where), dims, channels, where) for split, array in x.items()}
    kinds = {array.dtype for array in done.values()}
    if len(kinds) > 1:
        raise DataError(
            f"{where}: x: expected one type in all parts, found "
            + " and ".join(sorted(map(str, kinds))),
            "save all parts as float32",
        )
    return done


def _typed(x: NDArray[Any], where: str) -> NDArray[Any]:
    """In a type of `FULL_SCALE`, all values finite."""
    if x.dtype.kind == "b":
        return x.astype(np.uint8) * np.uint8(255)
    if x.dtype.kind == "f":
        with np.errstate(over="ignore"):  # what float32 cannot hold is refused below
            x = x.astype(np.float32, copy=False)
        for at in range(0, len(x), _ROWS):
            if not np.isfinite(x[at : at + _ROWS]).all():
                raise DataError(
                    f"{where}: x: expected finite values, found NaN or infinity",
                    "drop or repair those samples",
                )
    if x.dtype.name not in FULL_SCALE:
        raise DataError(
            f"{where}: x: expected uint8, int16 or floats, found {x.dtype}",
            "scale it to −1…1 or 0…1 and save x.astype('float32')",
        )
    return x


def _last(x: NDArray[Any], dims: int, channels: int | None, where: str) -> NDArray[Any]:
    """Channels last."""
    plain = "×".join(["N", *LAYOUTS[dims].split("×")[1:]])
    if x.ndim not in (dims + 1, dims + 2) or not x.size:
        raise DataError(
            f"{where}: x: expected {noun((0,) * dims)}s {plain}, {plain}×C or N×{LAYOUTS[dims]}, "
            f"found {x.shape}",
            "reshape them, or say how many axes a sample has beside its channels: "
            "--set data.dims=1, 2 or 3",
        )
    if x.ndim == dims + 1:
        return _of(x[..., np.newaxis], channels, where)
    first, last = x.shape[1], x.shape[-1]
    is_first = 2 * first <= last if channels is None else first == channels
    is_last = 2 * last <= first if channels is None else last == channels
    if is_last and not is_first:
        return x
    if is_first and not is_last:
        return np.moveaxis(x, 1, -1)
    if is_first or channels is None:
        raise DataError(
            f"{where}: x: the shape {x.shape} can be read as {plain}×C and as N×{LAYOUTS[dims]}",
            "say how many channels there are: --set data.channels=2"
            if first != last
            else "cut the samples or fill them up to another size",
        )
    raise DataError(
        f"{where}: x: expected {channels} channel(s), found {x.shape}",
        "give data with as many channels, or leave out data.channels",
    )


def _of(x: NDArray[Any], channels: int | None, where: str) -> NDArray[Any]:
    if channels not in (None, 1):
        raise DataError(
            f"{where}: x: expected {channels} channels, found one: {x.shape[:-1]}",
            "give data with as many channels, or leave out data.channels",
        )
    return x


def moments(
    count: int, gather: Callable[[int, int], NDArray[Any]], shape: tuple[int, ...], full: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, in units of the full scale.

    Args:
        count: samples.
        gather: gives the samples from one place up to another, N×C×….
        shape: of a sample, C×….
        full: the number that is 1.

    Returns:
        C means and C deviations, each at least `STD_FLOOR` of the channel's largest value.
    """
    some = max(1, _VALUES // math.prod(shape))
    axes = (0, *range(2, len(shape) + 1))
    total, squares, top = (np.zeros(shape[0]) for _ in range(3))
    for at in range(0, count, some):
        found = gather(at, min(count, at + some))
        total += found.sum(axis=axes, dtype=np.float64)
        top = np.maximum(top, np.abs(found.astype(np.float64)).max(axis=axes))
    mean = total / max(1, count * math.prod(shape[1:]))
    for at in range(0, count, some):  # a second look: sums of squares would cancel
        left = gather(at, min(count, at + some)) - mean.reshape(-1, *(1,) * len(shape[1:]))
        squares += np.square(left, dtype=np.float64).sum(axis=axes)
    std = np.sqrt(squares / max(1, count * math.prod(shape[1:])))
    std = np.maximum(std, STD_FLOOR * np.where(top > 0, top, full))
    return tuple((mean / full).tolist()), tuple((std / full).tolist())


def told(sizes: tuple[int, ...], channels: int) -> str:
    """Size and channels for people.

    >>> told((16000,), 2)
    'signals of 16000 × 2 channels'
    """
    plural = "" if channels == 1 else "s"
    return f"{noun(sizes)}s of {size_text(sizes)} × {channels} channel{plural}"
