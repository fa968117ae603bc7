"""What a picture may cost, asked of its header before a pixel is decoded. Floor 1, room data.

Imports floor 0, this room and Pillow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neocog.data.files import Limits, Remark, Undecodable, skip

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["check_budget", "check_header", "is_cheap"]

_AT_MOST = 32
"""Bytes a pixel that a baseline JPEG may take on its way, decoded and scaled: twice of what
`check_budget` reckons at worst."""


def check_header(image: Image.Image, data: bytes, kind: str, name: str, limits: Limits) -> None:
    """What can be refused before a pixel is decoded."""
    form = kind.lower()
    width, height = image.size
    if width * height > limits.pixels:
        raise skip(
            name, "pixel-limit", f"expected ≤ {limits.pixels} pixels, found {width}×{height}", form
        )
    if min(width, height) < limits.minimum_side:
        raise skip(
            name,
            "too-small",
            f"expected sides of at least {limits.minimum_side}, found {height}×{width}",
            form,
        )
    deep = image.mode.startswith(("I", "F"))
    if kind == "PNG":
        deep = deep or data[24:25] == b"\x10"  # Pillow narrows 16-bit RGB without a word
    elif kind == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(258, (8,))
        deep = deep or max(bits if isinstance(bits, tuple) else (bits,)) > 8
    elif kind == "PPM":
        args = getattr(image, "tile", [(0, 0, 0, ())])[0][3]
        deep = deep or (isinstance(args, tuple) and isinstance(args[-1], int) and args[-1] > 255)
    if deep and (not limits.deep or image.mode == "F"):
        reason = "expected 8 bits a channel, found more"
        raise Undecodable(name, Remark(form, "16-bit", reason, "refuse"))


def is_cheap(stored: tuple[int, int], target: tuple[int, int], length: int, limits: Limits) -> bool:
    """Whether a baseline JPEG is so far below the limits that nothing need be reckoned.

    Args:
        stored: its height and width.
        target: what it will be scaled to.
        length: of the file, in bytes.
        limits: what it may cost.
    """
    area = stored[0] * stored[1]
    most = max(area, target[0] * target[1], target[1] * (stored[0] + target[0]))
    return area <= limits.pixels and 2 * length + _AT_MOST * most <= limits.decoded_bytes


def check_budget(
    image: Image.Image,
    data: bytes,
    kind: str,
    name: str,
    target: tuple[int, int],
    turned: bool,
    limits: Limits,
) -> None:
    """Refuse what would decode, or be scaled up, to more than the budget, or take twice of it on
    the way."""
    bands = 3 if image.mode == "P" else len(image.getbands())
    cost = max(image.width * image.height, target[0] * target[1]) * bands
    if kind == "JPEG" and "progressive" in image.info:
        # A progressive JPEG keeps all coefficients whatever fraction is decoded: two bytes each,
        # at least as many as pixels. `draft` cannot help it.
        full = getattr(image, "decoderconfig", ()) or (1,)
        cost = max(cost, image.width * image.height * int(full[0]) ** 2 * bands)
    if cost > limits.decoded_bytes:
        raise skip(
            name,
            "over-budget",
            f"expected at most {limits.decoded_bytes} bytes decoded, found {cost}",
            kind.lower(),
        )
    held = max(_held(image, data, kind, turned), _held_scaling(image, target, turned))
    if held > 2 * limits.decoded_bytes:
        raise skip(
            name,
            "over-budget",
            f"expected at most {2 * limits.decoded_bytes} bytes held to decode it, found {held}",
            kind.lower(),
        )


def _held(image: Image.Image, data: bytes, kind: str, turned: bool) -> int:
    """Bytes that decoding holds at its peak, by what Pillow and its libraries are known to do.

    Pillow stores one byte a pixel in the modes 1, L and P, and four in all others.
    """
    pixels = image.width * image.height
    stored = 1 if image.mode in ("1", "L", "P") else 4
    plain = 1 if image.mode in ("1", "L", "LA", "La") else 4
    made = 0 if image.mode in ("L", "RGB") else plain  # by `_to_plain`
    each = stored + made + (plain if turned else 0)
    if kind == "WEBP":
        each += 12  # the animation's canvas, the one before it, and a copy as bytes
    cost = pixels * each
    if kind == "JPEG" and "progressive" in image.info:
        full = getattr(image, "decoderconfig", ()) or (1,)
        layers = [across * down for _, across, down, _ in getattr(image, "layer", ())] or [1]
        share = sum(layers) / max(layers)
        cost += int(2 * pixels * int(full[0]) ** 2 * share)
    return (len(data) + cost) * 17 // 16


def _held_scaling(image: Image.Image, target: tuple[int, int], turned: bool) -> int:
    """Bytes that scaling holds at its peak; a strip of 25,000×40 pixels grows a lot on the way.

    Pillow scales along the rows first, then along the columns; what comes out is copied piece by
    piece, and the pieces are joined.
    """
    width, height = (image.height, image.width) if turned else image.size
    if (height, width) == target:
        return 0
    one = image.mode in ("1", "L", "LA", "La")
    stored = 1 if image.mode in ("1", "L", "P") else 4
    before = width * height * (stored + (0 if image.mode in ("L", "RGB") else 1 if one else 4))
    between = target[1] * (height + target[0]) * (1 if one else 4)
    copies = 2 * target[0] * target[1] * (1 if one else 3)
    return (before + between + copies) * 17 // 16
