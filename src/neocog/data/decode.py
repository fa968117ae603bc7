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

import io
import struct
import sys
import warnings
import zlib
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast

# Each plugin by name: `Image.open` would otherwise import all of them, or miss two of ours.
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
)

from neocog.data.files import Limits, Remark, Undecodable, read_file, skip
from neocog.geometry import covering_size
from neocog.text import printable

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

_PLUGINS = (
    *(BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin),
    *(PpmImagePlugin, TiffImagePlugin, WebPImagePlugin),
)

SMALL = 128
"""Pictures with both sides up to this are decoded whole, and packed as they are where they all
share one size."""

_SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF8", "GIF"),
    (b"BM", "BMP"),
    *((start, "TIFF") for start in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")),
    *((b"P%d" % number, "PPM") for number in range(1, 7)),
)
_FOREIGN: tuple[tuple[bytes, str, str], ...] = (
    (b"version https://git-lfs", "git-lfs-pointer", "a Git LFS pointer"),
    (b"<!doctype", "html", "an HTML page"),
    (b"<html", "html", "an HTML page"),
    (b"<?xml", "foreign-format", "XML"),
    (b"<svg", "foreign-format", "SVG"),
    (b"%!ps", "foreign-format", "PostScript"),
    (b"\xc5\xd0\xd3\xc6", "foreign-format", "EPS"),
    (b"%pdf", "foreign-format", "PDF"),
    (b"simple  =", "foreign-format", "FITS"),
    (b"8bps", "foreign-format", "Photoshop"),
    (b"pk\x03\x04", "foreign-format", "a ZIP archive"),
    (b"\x1f\x8b", "foreign-format", "gzip"),
    (b"\0\0\0\x0cjp  ", "foreign-format", "JPEG 2000"),
)
_DECODER_ERRORS = (
    *(OSError, SyntaxError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError),
    *(EOFError, MemoryError, RuntimeError, AssertionError, struct.error, zlib.error),
)
"""What Pillow's decoders raise on damaged bytes: they promise nothing, so nearly everything."""
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
    kind = _sniff(data, name)
    if kind == "JPEG" and _EXIF not in data and _MPF not in data:
        return _open_and_decode(data, kind, name, cover, whole, limits)
    # Pillow's warnings are either faults that are found here or of no use to anyone.
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        found = _open_and_decode(data, kind, name, cover, whole, limits)
    if said and any("EXIF" in str(one.message) for one in said):
        remark = _broken_exif(kind.lower())
        found = replace(found, remarks=(*(r for r in found.remarks if r != remark), remark))
    return found


def _open_and_decode(
    data: bytes,
    kind: str,
    name: str,
    cover: tuple[int, int] | None,
    whole: int,
    limits: Limits,
) -> Picture:
    """`_decode`, with everything that Pillow raises turned into a fault."""
    try:
        with _open(data, kind) as image:
            return _decode(image, data, kind, name, cover, whole, limits)
    except Undecodable:
        raise
    except Image.DecompressionBombError as error:
        raise skip(name, "pixel-limit", f"expected at most {limits.pixels} pixels", kind) from error
    except MemoryError as error:
        reason = "decoding it takes more memory than it may"
        raise skip(name, "out-of-memory", reason, kind.lower()) from error
    except _DECODER_ERRORS as error:
        raise Undecodable(name, _damage(data, kind, error)) from error


def _open(data: bytes, kind: str) -> Image.Image:
    """The picture before it is decoded. What `Image.open` does besides, `_check_header` does."""
    if kind == "JPEG":
        return JpegImagePlugin.jpeg_factory(io.BytesIO(data))
    return Image.open(io.BytesIO(data), formats=(kind,))


def _broken_exif(form: str) -> Remark:
    return Remark(form, "broken-exif", "EXIF that cannot be read was ignored")


def _sniff(data: bytes, name: str) -> str:
    """The format, by the first bytes."""
    for start, kind in _SIGNATURES:
        if data.startswith(start):
            return kind
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    head = data[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    known = "expected JPEG, PNG, BMP, GIF, TIFF, WebP or PNM"
    for start, code, words in _FOREIGN:
        if head.startswith(start):
            raise skip(name, code, f"{known}, found {words}", "foreign")
    if data[4:8] == b"ftyp":
        raise skip(name, "foreign-format", f"{known}, found HEIC, AVIF or video", "foreign")
    shown = data[:8].hex(" ")
    raise skip(name, "unknown-format", f"{known}, found bytes {shown}", "unknown")


def _damage(data: bytes, kind: str, error: BaseException) -> Remark:
    """What a decoder's complaint means."""
    text = str(error)
    form = kind.lower()
    if kind == "PNG" and ("MAX_TEXT" in text or "text chunk" in text.lower()):
        return Remark(form, "text-bomb", "text that unpacks past every limit", "skip")
    cut = "truncated" in text or "Truncated" in text or "broken data stream" in text
    if kind == "JPEG" and not cut:
        cut = b"\xff\xd9" not in data[-64:]
    if kind == "PNG" and not cut:
        cut = b"IEND" not in data[-64:]
    if cut:
        reason = f"expected a whole {kind} file, found its first {len(data)} bytes only"
        return Remark(form, "truncated", reason, "skip", len(data))
    return Remark(form, "damaged", f"the {kind} decoder says: {printable(text)[:200]}", "skip")


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
    _check_header(image, data, kind, name, limits)
    if kind in ("GIF", "PNG", "WEBP", "TIFF") and getattr(image, "is_animated", False):
        remarks.append(Remark(form, "animated", "several frames, the first was taken"))
        image.seek(0)
    # A JPEG has its EXIF at hand before decoding; a PNG may have it only after; Pillow turns TIFFs
    # upright by itself while it loads.
    turn = _orientation(image, form, remarks) if kind == "JPEG" else 1
    stored = _upright(image, turn)
    goal = cover if max(stored) > whole else None
    target = covering_size(stored, goal) if goal else stored
    if goal and kind == "JPEG" and max(stored) > SMALL:
        # Decode 1/2, 1/4 or 1/8 of the size where that leaves twice what is needed: far faster,
        # and the antialiased scaling below still decides what the picture looks like.
        wide, high = target if turn >= 5 else (target[1], target[0])
        image.draft(None, (2 * wide, 2 * high))
    # Pillow turns a TIFF by itself while it loads.
    turned = turn != 1 or (kind == "TIFF" and image.getexif().get(0x0112, 1) != 1)
    _check_budget(image, data, kind, name, target, turned, limits)
    image.load()
    if kind == "PNG" and b"IEND\xaeB`\x82" not in data[-4096:]:
        remarks.append(Remark(form, "no-end", "the PNG lacks its end; all pixels were there"))
    if kind != "JPEG":
        turn = _orientation(image, form, remarks) if kind in ("PNG", "WEBP") else 1
        if turn != 1:
            _check_budget(image, data, kind, name, target, True, limits)
        stored = _upright(image, turn)
        target = covering_size(stored, goal) if goal else stored
    _check_profile(image, form, remarks)
    result = _to_plain(image, name, form, remarks)
    if turn != 1:
        remarks.append(Remark(form, "orientation", f"turned upright (EXIF orientation {turn})"))
        result = result.transpose(_TURNS[turn])
    if (result.height, result.width) != target:
        result = result.resize((target[1], target[0]), Image.Resampling.BILINEAR)
    return Picture(
        pixels=result.tobytes(),
        size=target,
        channels=1 if result.mode == "L" else 3,
        stored=stored,
        remarks=tuple(remarks),
    )


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image, turn: int) -> tuple[int, int]:
    """Height and width after the turn."""
    return (image.width, image.height) if turn >= 5 else (image.height, image.width)


def _check_header(image: Image.Image, data: bytes, kind: str, name: str, limits: Limits) -> None:
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


def _check_budget(
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


def _orientation(image: Image.Image, form: str, remarks: list[Remark]) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    info = image.info
    if not ("exif" in info or "Raw profile type exif" in info or "xmp" in info):
        return 1
    raw = info.get("exif", b"").removeprefix(b"Exif\0\0")
    if "exif" in info and raw[:4] not in (b"II*\0", b"MM\0*"):
        remarks.append(_broken_exif(form))
        return 1
    try:
        turn = image.getexif().get(0x0112, 1)
    except _DECODER_ERRORS:
        remarks.append(_broken_exif(form))
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


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
