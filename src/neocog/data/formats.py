"""Which formats pictures come in, and how a file is opened as one. Floor 1, room data.

Imports floor 0, this room and Pillow. The format is told by the first bytes, never by the file's
name; whatever a decoder raises becomes a fault that says what is wrong with the file.
"""

from __future__ import annotations

import io
import struct
import zlib
from typing import TYPE_CHECKING

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

from neocog.data.files import Limits, Remark, Undecodable, skip
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable

    from neocog.data.decode import Picture

__all__ = ["TURNS", "broken_exif", "opened", "orientation", "plain", "sniff", "upright"]

_PLUGINS = (
    *(BmpImagePlugin, GifImagePlugin, JpegImagePlugin, MpoImagePlugin, PngImagePlugin),
    *(PpmImagePlugin, TiffImagePlugin, WebPImagePlugin),
)

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
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def sniff(data: bytes, name: str) -> str:
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


def opened(
    data: bytes, kind: str, name: str, limits: Limits, read: Callable[[Image.Image], Picture]
) -> Picture:
    """What `read` makes of a picture, with everything that Pillow raises turned into a fault.

    Args:
        data: the whole file.
        kind: its format, of `sniff`.
        name: for messages.
        limits: what it may cost, for messages.
        read: from the picture before it is decoded.
    """
    try:
        with _open(data, kind) as image:
            return read(image)
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


def plain(data: bytes, size: tuple[int, int], channels: int) -> Image.Image | None:
    """A baseline JPEG without metadata that matter, decoded; None where the decoder complains.

    Args:
        data: the whole file.
        size: height and width, as its header says.
        channels: 1 or 3.
    """
    mode = "L" if channels == 1 else "RGB"
    try:
        return Image.frombytes(mode, (size[1], size[0]), data, "jpeg", mode, "")
    except _DECODER_ERRORS:
        return None


def broken_exif(form: str) -> Remark:
    """The remark on metadata that does not say how the picture lies."""
    return Remark(form, "broken-exif", "EXIF that cannot be read was ignored")


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


def orientation(image: Image.Image, form: str, remarks: list[Remark]) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none or it cannot be read."""
    info = image.info
    if not ("exif" in info or "Raw profile type exif" in info or "xmp" in info):
        return 1
    raw = info.get("exif", b"").removeprefix(b"Exif\0\0")
    if "exif" in info and raw[:4] not in (b"II*\0", b"MM\0*"):
        remarks.append(broken_exif(form))
        return 1
    try:
        turn = image.getexif().get(0x0112, 1)
    except _DECODER_ERRORS:
        remarks.append(broken_exif(form))
        return 1
    return turn if isinstance(turn, int) and 1 <= turn <= 8 else 1


def upright(image: Image.Image, turn: int) -> tuple[int, int]:
    """Height and width after the turn."""
    return (image.width, image.height) if turn >= 5 else (image.height, image.width)
