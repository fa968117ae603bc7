"""From a mask file to the class of each pixel. Floor 1, room data; imports floor 0 and Pillow.

A mask is a picture whose pixels are numbers of classes: grey of 8 bits, a palette, of which the
numbers count and not the colours, or black and white. It is read by the rules of `decode` for what
a file may cost and turned upright as the picture is, never scaled or recoloured. No torch and no
NumPy: worker processes start on this file.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING

from PIL import Image

from neocog.data.costs import check_budget, check_header
from neocog.data.decode import Picture
from neocog.data.files import Limits, Remark, Undecodable, skip
from neocog.data.formats import TURNS, opened, orientation, sniff, upright
from neocog.records import VOID

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Values", "mask"]

_LOSSY = ("JPEG", "WEBP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """Which numbers a mask may hold, beside 255 (`VOID`)."""

    classes: int = VOID
    """Classes are 0 … this − 1."""
    ignore: int | None = None
    """Another number that stands for pixels without a label."""


def mask(
    data: bytes, *, name: str, values: Values | None = None, limits: Limits | None = None
) -> Picture:
    """Decode the bytes of one mask.

    Args:
        data: the whole file.
        name: for messages.
        values: the numbers that it may hold.
        limits: what it may cost.

    Returns:
        H×W×1: classes, and `VOID` where a pixel has no label.

    Raises:
        Undecodable: no picture, damaged or too costly; lossy, which refuses the data set; colours
            without a palette; a number that is no class.
    """
    limits, values = limits or Limits(), values or Values()
    kind = sniff(data, name)
    if kind in _LOSSY:
        reason = f"expected a mask in a format that keeps its numbers, as PNG does, found {kind}"
        raise Undecodable(name, Remark(kind.lower(), "lossy-mask", reason, "refuse"))

    def read(image: Image.Image) -> Picture:
        return _read(image, data, kind, name, values, limits)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's: what is wrong is found here
        return opened(data, kind, name, limits, read)


def _read(
    image: Image.Image, data: bytes, kind: str, name: str, values: Values, limits: Limits
) -> Picture:
    """Header checks, numbers, upright."""
    form = kind.lower()
    try:
        check_header(image, data, kind, name, limits)
    except Undecodable as error:
        if error.remark.code != "16-bit":
            raise
        reason = "expected 8 bits a pixel, which 255 classes need, found more"
        raise Undecodable(name, Remark(form, "deep-mask", reason, "refuse")) from error
    if image.mode not in ("1", "L", "P"):
        reason = f"expected one number a pixel or a palette, found {image.mode} without one"
        raise skip(name, "mask-colors", reason, form)
    check_budget(image, data, kind, name, (image.height, image.width), True, limits)
    image.load()
    remarks: list[Remark] = []
    turn = orientation(image, form, remarks)
    # Of a palette the numbers; of black and white 0 and 255, which stand for 0 and 1.
    plain = image.convert("L") if image.mode == "1" else image
    numbers = Image.frombytes("L", plain.size, plain.tobytes())
    if image.mode == "1":
        numbers = numbers.point([*(0,) * 255, 1])
    counts = numbers.histogram()
    void = {VOID} if values.ignore is None else {VOID, values.ignore}
    _check_range(name, form, counts, values.classes, void)
    if sum(counts) == sum(counts[number] for number in void):
        remarks.append(Remark(form, "all-unlabelled", "no pixel of this mask has a label"))
    if len(void) > 1:
        numbers = numbers.point([VOID if number in void else number for number in range(256)])
    if turn != 1:
        remarks.append(Remark(form, "orientation", f"turned upright (EXIF orientation {turn})"))
        numbers = numbers.transpose(TURNS[turn])
    size = upright(image, turn)
    return Picture(
        pixels=numbers.tobytes(), size=size, channels=1, stored=size, remarks=tuple(remarks)
    )


def _check_range(name: str, form: str, counts: Sequence[int], classes: int, void: set[int]) -> None:
    """Raises an `Undecodable` where a number is neither a class nor without a label."""
    odd = [n for n, count in enumerate(counts) if count and n >= classes and n not in void]
    if odd:
        told = ", ".join(map(str, odd[:4])) + (", …" if len(odd) > 4 else "")
        reason = f"expected classes from 0 to {classes - 1} or {VOID} for no label, found {told}"
        raise skip(name, "class-range", reason, form)
