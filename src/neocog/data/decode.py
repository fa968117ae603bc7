"""From an image file to pixels: the one way. Floor 1, room data; imports floor 0 and Pillow.

The scan, the pack and `neocog predict` all decode here, so a picture answers the same wherever it
is met. No torch, and NumPy only where an array is asked for: worker processes start on this file.

Order of the steps: the bytes are read without ever blocking, their format is told by their first
bytes (never by the file's name), size and memory are checked against the header before a pixel is
decoded, frame 0 is decoded, turned upright by EXIF, scaled, and only then brought to 1 or 3
channels. The order is part of the contract: the pack may hold a picture as RGB and turn it grey
later, with equal results.
"""

from __future__ import annotations

import sys
import warnings
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

from PIL import Image

from neocog.data.costs import check_budget, check_header, is_cheap
from neocog.data.files import Limits, Remark, Undecodable, read_file
from neocog.data.formats import TURNS, broken_exif, opened, orientation, plain, sniff, upright
from neocog.data.jpeg import plain_size
from neocog.geometry import covering_size

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    from numpy.typing import NDArray

__all__ = [
    "SMALL",
    "Limits",
    "Picture",
    "Remark",
    "Undecodable",
    "decode",
    "fit",
    "picture",
    "read_file",
    "recolor",
]


SMALL = 128
"""Pictures with both sides up to this are decoded whole, and packed as they are where they all
share one size."""

_EXIF, _MPF = b"Exif", b"MPF\0"
"""Metadata that Pillow warns about. A JPEG without them is decoded without listening for warnings,
which would take as long as reading its header."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """One decoded picture."""

    pixels: bytes
    """H×W×C, uint8, row by row."""
    size: tuple[int, int]
    """Height and width of `pixels`."""
    channels: int
    """1 or 3, as the file has it."""
    stored: tuple[int, int]
    """Height and width in the file, upright."""
    remarks: tuple[Remark, ...] = ()
    """What was accepted with a remark."""

    def array(self) -> NDArray[np.uint8]:
        """H×W×C, uint8, writable."""
        import numpy as np

        return np.frombuffer(bytearray(self.pixels), np.uint8).reshape(*self.size, self.channels)


def decode(
    path: Path | str | bytes,
    *,
    channels: int | None = None,
    cover: tuple[int, int] | None = None,
    limits: Limits | None = None,
) -> NDArray[np.uint8]:
    """The pixels of an image file, or of the bytes of one.

    Args:
        path: the file, or its bytes.
        channels: 1 or 3; None: as the file has it.
        cover: height and width of the network's input: the picture is scaled to
            `covering_size` of it. None: the picture's own size.
        limits: what the picture may cost.

    Returns:
        H×W×C, uint8.

    Raises:
        Undecodable: the file is no picture, is damaged, or costs too much.
    """
    limits = limits or Limits()
    name = "picture" if isinstance(path, bytes) else str(path)
    data = path if isinstance(path, bytes) else read_file(path, limits=limits)
    found = picture(data, name=name, cover=cover, limits=limits)
    return recolor(found.array(), channels or found.channels)


def picture(
    data: bytes,
    *,
    name: str,
    cover: tuple[int, int] | None = None,
    whole: int = 0,
    limits: Limits | None = None,
) -> Picture:
    """Decode the bytes of one picture.

    Args:
        data: the whole file.
        name: for messages.
        cover: height and width of the network's input; None: no scaling.
        whole: pictures with both sides up to this many pixels are not scaled.
        limits: what the picture may cost.

    Raises:
        Undecodable: not a picture, damaged, or too costly.
    """
    limits = limits or Limits()
    kind = sniff(data, name)
    if kind == "JPEG" and (quick := _small(data, cover, whole, limits)) is not None:
        return quick

    def read(image: Image.Image) -> Picture:
        return _decode(image, data, kind, name, cover, whole, limits)

    if kind == "JPEG" and _EXIF not in data and _MPF not in data:
        return opened(data, kind, name, limits, read)
    # Pillow's warnings are either faults that are found here or of no use to anyone.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = opened(data, kind, name, limits, read)
    if said and any("EXIF" in str(one.message) for one in said):
        remark = broken_exif(kind.lower())
        found = replace(found, remarks=(*(r for r in found.remarks if r != remark), remark))
    return found


def _small(
    data: bytes, cover: tuple[int, int] | None, whole: int, limits: Limits
) -> Picture | None:
    """A small JPEG of which there is nothing to say, as `_decode` gives it, in less than two thirds
    of the time; None: any other, and one that is damaged, of which the long way says how."""
    size = plain_size(data)
    if size is None or not limits.minimum_side <= min(size[:2]) <= max(size[:2]) <= SMALL:
        return None
    stored, channels = size[:2], size[2]
    target = covering_size(stored, cover) if cover and max(stored) > whole else stored
    if not is_cheap(stored, target, len(data), limits):
        return None
    image = plain(data, stored, channels)
    if image is None:
        return None
    if target != stored:
        image = image.resize((target[1], target[0]), Image.Resampling.BILINEAR)
    return Picture(pixels=image.tobytes(), size=target, channels=channels, stored=stored)


def _decode(
    image: Image.Image,
    data: bytes,
    kind: str,
    name: str,
    cover: tuple[int, int] | None,
    whole: int,
    limits: Limits,
) -> Picture:
    """Header checks, pixels, upright, scaled, L or RGB."""
    form = kind.lower()
    remarks: list[Remark] = []
    check_header(image, data, kind, name, limits)
    if kind in ("GIF", "PNG", "WEBP", "TIFF") and getattr(image, "is_animated", False):
        remarks.append(Remark(form, "animated", "several frames, the first was taken"))
        image.seek(0)
    # A JPEG has its EXIF at hand before decoding; a PNG may have it only after; Pillow turns TIFFs
    # upright by itself while it loads.
    turn = orientation(image, form, remarks) if kind == "JPEG" else 1
    stored = upright(image, turn)
    goal = cover if max(stored) > whole else None
    target = covering_size(stored, goal) if goal else stored
    if goal and kind == "JPEG" and max(stored) > SMALL:
        # Decode 1/2, 1/4 or 1/8 of the size where that leaves twice what is needed: far faster,
        # and the antialiased scaling below still decides what the picture looks like.
        wide, high = target if turn >= 5 else (target[1], target[0])
        image.draft(None, (2 * wide, 2 * high))
    # Pillow turns a TIFF by itself while it loads.
    turned = turn != 1 or (kind == "TIFF" and image.getexif().get(0x0112, 1) != 1)
    check_budget(image, data, kind, name, target, turned, limits)
    image.load()
    if kind == "PNG" and b"IEND\xaeB`\x82" not in data[-4096:]:
        remarks.append(Remark(form, "no-end", "the PNG lacks its end; all pixels were there"))
    if kind != "JPEG":
        turn = orientation(image, form, remarks) if kind in ("PNG", "WEBP") else 1
        if turn != 1:
            check_budget(image, data, kind, name, target, True, limits)
        stored = upright(image, turn)
        target = covering_size(stored, goal) if goal else stored
    _check_profile(image, form, remarks)
    result = _to_plain(image, name, form, remarks)
    if turn != 1:
        remarks.append(Remark(form, "orientation", f"turned upright (EXIF orientation {turn})"))
        result = result.transpose(TURNS[turn])
    if (result.height, result.width) != target:
        result = result.resize((target[1], target[0]), Image.Resampling.BILINEAR)
    return Picture(
        pixels=result.tobytes(),
        size=target,
        channels=1 if result.mode == "L" else 3,
        stored=stored,
        remarks=tuple(remarks),
    )


def _check_profile(image: Image.Image, form: str, remarks: list[Remark]) -> None:
    """Colour profiles are not applied; a broken one is worth a remark all the same."""
    if "icc_profile" not in image.info:
        return
    profile = image.info["icc_profile"]
    if not isinstance(profile, bytes) or len(profile) < 128 or profile[36:40] != b"acsp":
        remarks.append(Remark(form, "broken-icc", "a colour profile that cannot be read"))


def _upper_half(image: Image.Image, name: str, form: str, remarks: list[Remark]) -> Image.Image:
    """Grey of 16 bits as its upper 8. Colour of 16 bits is narrowed so by Pillow itself.

    Raises:
        Undecodable: numbers beyond 16 bits.
    """
    if image.mode == "I":
        least, most = cast("tuple[int, int]", image.getextrema())
        if least < 0 or most >= 1 << 16:
            reason = f"expected 16 bits at most, found values {least} to {most}"
            raise Undecodable(name, Remark(form, "16-bit", reason, "refuse"))
    raw = image.tobytes()
    if image.mode == "I":
        upper = raw[1::4] if sys.byteorder == "little" else raw[2::4]
    else:
        upper = raw[0::2] if image.mode == "I;16B" else raw[1::2]
    remarks.append(Remark(form, "16-bit", "of 16 bits a channel the upper 8 were taken"))
    return Image.frombytes("L", image.size, upper)


def _to_plain(image: Image.Image, name: str, form: str, remarks: list[Remark]) -> Image.Image:
    """Mode L or RGB. Alpha is dropped, not blended: no background is invented."""
    mode = image.mode
    if mode in ("L", "RGB"):
        return image
    if mode.startswith("I"):
        return _upper_half(image, name, form, remarks)
    if mode == "1":
        return image.convert("L")
    words = {"CMYK": "CMYK", "P": "a palette", "PA": "a palette"}
    code = {"CMYK": "cmyk", "P": "palette", "PA": "palette"}.get(mode, "alpha")
    if mode in ("LA", "La"):
        remarks.append(Remark(form, code, "alpha was dropped"))
        return (image if mode == "LA" else image.convert("LA")).getchannel("L")
    if mode in ("YCbCr", "LAB", "HSV"):
        words[mode], code = mode, "color-space"
    remarks.append(Remark(form, code, f"{words.get(mode, 'alpha')} was converted to RGB"))
    image.info.pop("transparency", None)  # a palette's would be carried along with a warning
    return image.convert("RGB")


def recolor(pixels: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """…×C → …×`channels`: grey by ITU-R 601-2 luma, RGB by repeating grey.

    Raises:
        ValueError: other than 1 or 3 channels.
    """
    import numpy as np

    current = pixels.shape[-1]
    if current not in (1, 3) or channels not in (1, 3):
        raise ValueError(f"pictures have 1 or 3 channels: cannot turn {current} into {channels}")
    if current == channels:
        return pixels
    if channels == 3:
        return np.repeat(pixels, 3, axis=-1)
    flat = np.ascontiguousarray(pixels).reshape(-1, 1, 3)
    grey = np.empty(flat.shape[0], np.uint8)
    for start in range(0, len(flat), 2**20):
        part = flat[start : start + 2**20]
        grey[start : start + len(part)] = np.asarray(Image.fromarray(part).convert("L"))[:, 0]
    return grey.reshape(*pixels.shape[:-1], 1)


def fit(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """H×W×C → h×w×C, bilinear and antialiased: the scaling of `decode`, for pixels at hand."""
    import numpy as np

    if pixels.shape[:2] == size:
        return pixels
    grey = pixels.shape[2] == 1
    image = Image.fromarray(np.ascontiguousarray(pixels[..., 0] if grey else pixels))
    scaled = np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))
    return scaled[..., None] if grey else scaled
