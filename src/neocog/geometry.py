"""What the sizes of samples mean, and how a picture is brought to the size of a network's input.

Floor 0: standard library only. Signals have one axis behind the channels, pictures two, volumes
three. The pack, a picture file given to `predict` and `layers.Fit` all ask here, so that one
picture gives one answer whichever way it came; signals and volumes are never scaled.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["LAYOUTS", "MARGIN", "covering_size", "noun", "size_text"]

LAYOUTS = {1: "C×L", 2: "C×H×W", 3: "C×D×H×W"}
"""Axes of a sample, by the number of those behind the channels."""
_NOUNS = {1: "signal", 2: "picture", 3: "volume"}

MARGIN = 1.15
"""Pictures that do not fit the network's input are brought to this multiple of it, then cropped in
the centre; 1/1.15 = 0.87 is the share of the picture that the field's usual crop keeps."""


def covering_size(
    size: tuple[int, int], target: tuple[int, int], margin: float = MARGIN
) -> tuple[int, int]:
    """The size to which a picture is scaled so that it covers `margin` × `target`.

    A picture that already has the target's size stays as it is, and so does one that was scaled
    before: the function is idempotent, which lets a packed picture and its file give one answer.

    Args:
        size: height and width of the picture.
        target: height and width of the network's input.
        margin: how much larger than the input.

    >>> covering_size((480, 640), (128, 128))
    (147, 196)
    >>> covering_size((147, 196), (128, 128)), covering_size((32, 32), (32, 32))
    ((147, 196), (32, 32))
    """
    if size == target:
        return size
    wanted = (round(target[0] * margin), round(target[1] * margin))
    height, width = size
    # Integers only: the side that decides is hit exactly, whatever the machine rounds like.
    if height * wanted[1] <= width * wanted[0]:
        return wanted[0], max(wanted[1], (2 * width * wanted[0] + height) // (2 * height))
    return max(wanted[0], (2 * height * wanted[1] + width) // (2 * width)), wanted[1]


def noun(size: Sequence[int]) -> str:
    """What a sample of this size is called.

    >>> noun((16000,)), noun((28, 28)), noun((16, 64, 64))
    ('signal', 'picture', 'volume')
    """
    return _NOUNS.get(len(size), "sample")


def size_text(size: Sequence[int]) -> str:
    """A size for people.

    >>> size_text((16000,)), size_text((28, 28)), size_text((16, 64, 64))
    ('16000', '28×28', '16×64×64')
    """
    return "×".join(map(str, size))
