"""Pictures: one that is to be learnt from, or a mask."""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from faults.mutate import checksummed_png, mutated
from faults.targets.target import Files, Target, seed

if TYPE_CHECKING:
    import random
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["TARGETS", "pictures", "pixels"]


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, form, **options)  # saving may leave traces in an image
    return file.getvalue()


def pixels(*shape: int) -> NDArray[np.uint8]:
    """A slope with some noise: neither flat nor incompressible."""
    noise = np.random.default_rng(0).integers(0, 32, shape)
    ramp = np.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2)) * 5
    return ((ramp + noise) % 256).astype(np.uint8)


@cache
def pictures() -> tuple[bytes, ...]:
    """One small good file of each sort that Pillow can write."""
    color, grey = Image.fromarray(pixels(24, 40, 3)), Image.fromarray(pixels(24, 40))
    palette = color.quantize(16)
    clear = Image.fromarray(pixels(24, 40, 4), "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "words"

    def frames() -> dict[str, Any]:
        return {"save_all": True, "append_images": [grey.convert("RGB") for _ in range(2)]}

    made = [
        _encoded(color, "JPEG", exif=exif, icc_profile=bytes(200)),
        _encoded(color, "JPEG", progressive=True, comment=b"x"),
        _encoded(color.convert("CMYK"), "JPEG", restart_marker_blocks=1),
        *(_encoded(image, "JPEG", quality=50) for image in (grey, color)),
        _encoded(color, "MPO", **frames()),
        *(_encoded(image, "PNG") for image in (grey, color, clear, clear.convert("LA"))),
        _encoded(palette, "PNG", transparency=bytes(16), exif=exif),
        _encoded(grey.convert("1"), "PNG", icc_profile=bytes(200)),
        _encoded(color, "PNG", **frames()),
        _encoded(Image.fromarray(pixels(24, 40).astype(np.uint16)), "PNG"),
        _encoded(palette, "GIF", save_all=True, append_images=[palette.rotate(90)] * 2, loop=0),
        *(_encoded(image, "BMP") for image in (color, grey, palette, clear)),
        *(
            _encoded(color, "TIFF", compression=name, exif=exif)
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        _encoded(grey.convert("1"), "TIFF", compression="group4"),
        _encoded(clear, "TIFF", tiffinfo={317: 2}, compression="tiff_lzw"),
        _encoded(color, "TIFF", big_tiff=True, **frames()),
        _encoded(color, "WEBP", quality=50, exif=exif),
        _encoded(clear, "WEBP", lossless=True),
        _encoded(color, "WEBP", **frames()),
        *(_encoded(image, "PPM") for image in (color, grey, grey.convert("1"))),
        b"P3 4 2 255\n" + b"1 2 3 " * 8,
        b"P1 4 2\n0 1 0 1 1 0 1 0",
    ]
    return tuple(made)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, kind: int, *chunks: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(chunks) + _chunk(b"IEND", b"")


def _picture_bombs() -> list[Files]:
    zeros = zlib.compress(bytes(64 << 20), 9)
    small = _chunk(b"IDAT", zlib.compress(bytes(100), 9))
    side = 4600  # just inside the budget as RGB
    exif = Image.Exif()
    exif[0x0112] = 6
    flat = Image.new("RGB", (side, side), (9, 8, 7))
    grey = Image.new("L", (8000, 8000))
    palette = flat.quantize(4)
    bombs = [
        _png(65535, 65535, 2, _chunk(b"IDAT", b"")),
        _png(4, 4, 2, _chunk(b"zTXt", b"note\0\0" + zeros), small),
        _png(4, 4, 2, _chunk(b"iCCP", b"note\0\0" + zeros), small),
        _png(4, 4, 2, _chunk(b"iTXt", b"note\0\1\0\0\0" + zeros), small),
        _png(4, 4, 2, *[_chunk(b"zTXt", b"n\0\0" + zlib.compress(bytes(900_000)))] * 200, small),
        _png(4, 4, 2, _chunk(b"IDAT", zeros)),
        _png(4, 4, 2, *[_chunk(b"tEXt", b"n\0x")] * 300_000, small),
        _encoded(flat, "PNG"),
        _encoded(flat, "PNG", exif=exif),
        _encoded(flat.convert("RGBA").resize((4000, 4000)), "PNG"),
        _encoded(palette, "PNG", transparency=bytes(4)),
        _encoded(palette, "PNG", transparency=bytes(4), exif=exif),
        _encoded(grey, "PNG"),
        _encoded(grey.convert("1"), "PNG"),
        _encoded(Image.new("RGB", (7000, 7000)), "PNG"),
        *(_encoded(flat, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate")),
        _encoded(flat, "TIFF", compression="tiff_adobe_deflate", exif=exif),
        _encoded(grey.convert("1"), "TIFF", compression="group4"),
        _encoded(flat, "WEBP", lossless=True, method=0),
        _encoded(flat.convert("RGBA").resize((4000, 4000)), "WEBP", lossless=True, method=0),
        _encoded(palette, "GIF", save_all=True, append_images=[palette] * 3),
        _encoded(flat, "JPEG"),
        _encoded(flat, "JPEG", exif=exif),
        _encoded(Image.new("RGB", (9000, 9000)), "JPEG"),
        _encoded(Image.new("RGB", (9000, 9000)), "JPEG", progressive=True),
        _encoded(flat, "JPEG", progressive=True),
        _encoded(flat, "JPEG", progressive=True, subsampling=0),
        _encoded(Image.new("LA", (5700, 5700)), "PNG"),
        _encoded(flat, "BMP"),
        _encoded(flat.convert("CMYK").resize((4000, 4000)), "JPEG"),
        # Strips grow when their short side is brought to a network's size.
        *(_encoded(Image.new(mode, (40, 25_600)), "PNG") for mode in ("L", "RGB", "RGBA")),
        _encoded(Image.new("RGB", (54_800, 26)), "JPEG", progressive=True),
        _encoded(Image.new("RGB", (26, 54_800)), "GIF"),
        b"P6 65535 65535 255\n",
        b"P3 4000 4000 255\n" + b"1 " * 1000,
        b"BM" + struct.pack("<IIIIiiHHII", 54, 0, 54, 40, 60000, -60000, 1, 24, 0, 0) + bytes(24),
    ]
    return [{"x": bomb} for bomb in bombs]


def _make_picture(chance: random.Random) -> Files:
    data = mutated(chance.choice(pictures()), seed(chance), pictures())
    if data.startswith(b"\x89PNG") and chance.random() < 0.7:
        data = checksummed_png(data)
    return {"x": data}


def _read_picture(folder: Path) -> None:
    from neocog.data.decode import SMALL, picture, read_file

    data = read_file(folder / "x")
    found = picture(data, name="x", cover=(SMALL, SMALL), whole=SMALL)
    assert len(found.pixels) == found.size[0] * found.size[1] * found.channels


def _read_mask(folder: Path) -> None:
    from neocog.data.decode import read_file
    from neocog.data.masks import Values, mask

    data = read_file(folder / "x")
    found = mask(data, name="x", values=Values(classes=200, ignore=3))
    assert len(found.pixels) == found.size[0] * found.size[1]
    assert 3 not in found.pixels


TARGETS = {
    "images": Target(make=_make_picture, read=_read_picture, bombs=_picture_bombs),
    "masks": Target(make=_make_picture, read=_read_mask, bombs=_picture_bombs),
}
