"""One way from a file to pixels, against Pillow and NumPy used directly."""

from __future__ import annotations

import errno
import io
import os
import struct
import subprocess
import sys
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image, ImageOps

from neocog.data.decode import (
    Limits,
    Undecodable,
    decode,
    fit,
    picture,
    read_file,
    recolor,
)
from neocog.geometry import covering_size

if TYPE_CHECKING:
    from pathlib import Path

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def encoded(image: Any, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(
        file, form, **options
    )
    return file.getvalue()


def code(data: bytes, **options: Any) -> tuple[str, str]:
    """Code and policy of the fault that these bytes cause."""
    with pytest.raises(Undecodable) as caught:
        picture(data, name="x.jpg", **options)
    return caught.value.fault.code, caught.value.fault.policy


def remarks(data: bytes) -> list[str]:
    found = picture(data, name="x")
    assert all(remark.policy == "accept" for remark in found.remarks)
    return [remark.code for remark in found.remarks]


@pytest.mark.parametrize("form", ["PNG", "BMP", "TIFF", "PPM"])
def test_lossless_formats_give_the_pixels_back(form: str) -> None:
    assert np.array_equal(decode(encoded(PIXELS, form)), PIXELS)
    assert np.array_equal(decode(encoded(PIXELS[..., 0], form))[..., 0], PIXELS[..., 0])


@pytest.mark.parametrize("form", ["JPEG", "WEBP", "GIF"])
def test_other_formats_agree_with_pillow(form: str) -> None:
    data = encoded(PIXELS, form)
    with Image.open(io.BytesIO(data)) as image:
        assert np.array_equal(decode(data), np.asarray(image.convert("RGB")))


def test_channels() -> None:
    luma = (PIXELS @ np.array([19595, 38470, 7471]) + 0x8000) >> 16  # ITU-R 601-2, 16 bits
    grey = decode(encoded(PIXELS, "PNG"), channels=1)
    assert np.array_equal(grey[..., 0], luma)
    assert np.array_equal(recolor(PIXELS, 1), grey)
    three = decode(encoded(PIXELS[..., 0], "PNG"), channels=3)
    assert np.array_equal(three, np.repeat(PIXELS[..., :1], 3, axis=2))
    with pytest.raises(ValueError, match="1 or 3"):
        recolor(PIXELS, 2)


def test_scaling_is_pillows_bilinear_and_commutes_with_recolouring() -> None:
    data = encoded(PIXELS, "PNG")
    height, width = covering_size((40, 60), (16, 16))
    expected = np.asarray(Image.fromarray(PIXELS).resize((width, height), Image.BILINEAR))
    assert np.array_equal(decode(data, cover=(16, 16)), expected)
    assert np.array_equal(fit(PIXELS, (height, width)), expected)
    grey = recolor(fit(decode(data), (height, width)), 1)
    assert np.array_equal(decode(data, cover=(16, 16), channels=1), grey)


def test_large_jpeg_is_drafted_yet_close_to_the_whole_way() -> None:
    rows, columns = np.mgrid[0:600, 0:900]
    smooth = np.stack([rows / 600, columns / 900, (rows + columns) / 1500], -1) * 255
    data = encoded(smooth.astype(np.uint8), "JPEG", quality=95)
    size = covering_size((600, 900), (64, 64))
    got = decode(data, cover=(64, 64))
    assert got.shape[:2] == size
    with Image.open(io.BytesIO(data)) as image:
        whole = np.asarray(image.resize((size[1], size[0]), Image.BILINEAR)).astype(int)
    assert np.abs(got - whole).max() <= 3


@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("turn", range(1, 9))
def test_exif_orientation(form: str, turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(PIXELS, form, exif=exif, **options)
    with Image.open(io.BytesIO(data)) as image:
        upright = ImageOps.exif_transpose(image)
        assert np.array_equal(decode(data), np.asarray(upright.convert("RGB")))
    shape = (60, 40) if turn >= 5 else (40, 60)
    found = picture(data, name="x", cover=(16, 16))
    assert found.stored == shape
    assert found.size == covering_size(shape, (16, 16))


@pytest.mark.parametrize("turn", [1, 6, 8])
def test_orientation_of_a_drafted_jpeg(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    data = encoded(np.full((400, 800, 3), 90, np.uint8), "JPEG", exif=exif)
    found = picture(data, name="x", cover=(32, 32))
    assert found.stored == ((800, 400) if turn > 4 else (400, 800))
    assert found.size == covering_size(found.stored, (32, 32))
    assert set(found.pixels) == {90}


def test_accepted_with_a_remark() -> None:
    png = encoded(PIXELS, "PNG")
    assert remarks(png) == []
    for cut in (1, 4, 12):
        assert remarks(png[:-cut]) == ["no-end"]
        assert np.array_equal(decode(png[:-cut]), PIXELS)
    image = Image.fromarray(PIXELS)
    assert remarks(encoded(image.convert("CMYK"), "JPEG")) == ["cmyk"]
    assert remarks(encoded(image.convert("P"), "PNG")) == ["palette"]
    alpha = image.convert("RGBA")
    alpha.putalpha(0)
    assert remarks(encoded(alpha, "PNG")) == ["alpha"]
    assert np.array_equal(decode(encoded(alpha, "PNG")), PIXELS)
    assert remarks(encoded(image.convert("LA"), "PNG")) == ["alpha"]
    assert decode(encoded(image.convert("LA"), "PNG")).shape == (40, 60, 1)
    assert decode(encoded(image.convert("1"), "PNG")).shape == (40, 60, 1)
    second = Image.fromarray(255 - PIXELS)
    film = encoded(image, "GIF", save_all=True, append_images=[second])
    assert "animated" in remarks(film)
    assert np.array_equal(decode(film), decode(encoded(image, "GIF")))
    for exif in (b"Exif\0\0MM\0*\0\0\0\x08\0\xff garbage", b"Exif\0\0garbage"):
        assert remarks(encoded(PIXELS, "JPEG", exif=exif)) == ["broken-exif"]
    assert remarks(encoded(PIXELS, "JPEG", icc_profile=b"no profile")) == ["broken-icc"]
    turned = Image.Exif()
    turned[0x0112] = 3
    assert remarks(encoded(PIXELS, "JPEG", exif=turned)) == ["orientation"]


def test_truncated_and_foreign_files_are_skipped() -> None:
    jpeg, png = encoded(PIXELS, "JPEG"), encoded(PIXELS, "PNG")
    for cut in (10, 200, len(jpeg) // 2, len(jpeg) - 1):
        assert code(jpeg[:cut]) == ("truncated", "skip")
    for cut in (30, 200, len(png) // 2):
        assert code(png[:cut]) == ("truncated", "skip")
    foreign = {
        b"<!DOCTYPE html><p>404": "html",
        b"\n <HTML>": "html",
        b"version https://git-lfs.github.com/spec/v1\noid": "git-lfs-pointer",
        b"%!PS-Adobe-3.0 EPSF-3.0": "foreign-format",
        b"%PDF-1.7": "foreign-format",
        b"SIMPLE  =                    T": "foreign-format",
        b"8BPS\0\1": "foreign-format",
        b"\0\0\0\x18ftypheic": "foreign-format",
        b"\0" * 50: "unknown-format",
        b"a": "unknown-format",
    }
    for data, expected in foreign.items():
        assert code(data) == (expected, "skip")


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def test_costly_files_are_skipped_before_they_cost() -> None:
    head = struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", b"") + _chunk(b"IEND", b"")
    assert code(png) == ("pixel-limit", "skip")
    text = _chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(3 * 2**20)))
    plain = encoded(PIXELS, "PNG")
    assert code(plain[:33] + text + plain[33:]) == ("text-bomb", "skip")
    big = encoded(Image.new("RGB", (5000, 5000)), "PNG")
    assert code(big) == ("over-budget", "skip")
    assert code(plain, limits=Limits(decoded_bytes=7000)) == ("over-budget", "skip")
    strip = encoded(Image.new("L", (20000, 1)), "PNG")
    assert code(strip, limits=Limits(minimum_side=2)) == ("too-small", "skip")
    # A strip that is cheap by itself but not once it is scaled to cover the input.
    assert code(strip, cover=(128, 128)) == ("over-budget", "skip")
    assert decode(strip).shape == (1, 20000, 1)
    # And one whose pixels fit, but not all that scaling them holds on the way.
    long = encoded(Image.new("RGBA", (40, 25_600)), "PNG")
    assert code(long, cover=(128, 128)) == ("over-budget", "skip")
    assert picture(long, name="x", cover=(64, 64)).size == (47_360, 74)
    assert decode(long).shape == (25_600, 40, 3)
    large = Image.new("RGB", (6000, 4500))
    assert decode(encoded(large, "JPEG"), cover=(64, 64)).shape == (74, 99, 3)
    assert code(encoded(large, "JPEG", progressive=True), cover=(64, 64))[0] == "over-budget"


def test_sixteen_bits_are_refused() -> None:
    grey = Image.fromarray(np.zeros((4, 4), np.uint16))
    rows = b"".join(b"\0" + bytes(24) for _ in range(4))
    head = struct.pack(">IIBBBBB", 4, 4, 16, 2, 0, 0, 0)
    rgb = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows))
    for data in (
        *(encoded(grey, "PNG"), encoded(grey, "TIFF"), rgb + _chunk(b"IEND", b"")),
        *(b"P6 4 4 65535\n" + bytes(96), b"P5 4 4 65535\n" + bytes(32)),
    ):
        assert code(data) == ("16-bit", "refuse")


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "TIFF big", "PNG RGB", "PPM", "PGM"])
def test_of_sixteen_bits_that_were_declared_the_upper_eight_are_taken(kind: str) -> None:
    """Every reader's numbers against NumPy's shift, in both orders of bytes."""
    grey = np.random.default_rng(0).integers(0, 1 << 16, (5, 7), dtype=np.uint16)
    color = np.random.default_rng(1).integers(0, 1 << 16, (5, 7, 3), dtype=np.uint16)
    head = struct.pack(">IIBBBBB", 7, 5, 16, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in color)
    made = {
        "PNG": lambda: encoded(Image.fromarray(grey), "PNG"),
        "TIFF": lambda: encoded(Image.fromarray(grey), "TIFF"),
        "TIFF big": lambda: encoded(
            Image.frombytes("I;16B", (7, 5), grey.astype(">u2").tobytes()), "TIFF"
        ),
        "PNG RGB": lambda: (
            b"\x89PNG\r\n\x1a\n"
            + _chunk(b"IHDR", head)
            + _chunk(b"IDAT", zlib.compress(rows))
            + _chunk(b"IEND", b"")
        ),
        "PPM": lambda: b"P6 7 5 65535\n" + color.astype(">u2").tobytes(),
        "PGM": lambda: b"P5 7 5 65535\n" + grey.astype(">u2").tobytes(),
    }[kind]()
    found = decode(made, limits=Limits(deep=True)).astype(int)
    expected = ((color if found.shape[2] == 3 else grey[..., None]) >> 8).astype(int)
    # Pillow itself scales a PPM in colour, rounding where others cut.
    np.testing.assert_allclose(found, expected, atol=1 if kind == "PPM" else 0)


def test_more_than_sixteen_bits_are_refused_even_then() -> None:
    wide = Image.fromarray(np.full((4, 4), 1 << 20, np.int32))
    real = Image.fromarray(np.full((4, 4), 0.5, np.float32))
    for one in (wide, real):
        with pytest.raises(Undecodable) as caught:
            decode(encoded(one, "TIFF"), limits=Limits(deep=True))
        assert caught.value.remark.code == "16-bit"


def read_code(path: Path, **options: Any) -> str:
    with pytest.raises(Undecodable) as caught:
        read_file(path, **options)
    assert caught.value.fault.policy == "skip"
    return caught.value.fault.code


def test_what_is_no_file_is_skipped_without_waiting(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "sub.jpg").mkdir(parents=True)
    assert read_code(root / "sub.jpg") == "not-a-file"
    assert read_code(root / "none.jpg") == "missing"
    (root / "empty.jpg").touch()
    assert read_code(root / "empty.jpg") == "empty-file"
    os.mkfifo(root / "pipe.jpg")
    assert read_code(root / "pipe.jpg") == "not-a-file"
    (root / "null.jpg").symlink_to("/dev/null")
    assert read_code(root / "null.jpg") == "not-a-file"
    (root / "loop.jpg").symlink_to("loop.jpg")
    assert read_code(root / "loop.jpg") == "link-loop"
    outside = tmp_path / "outside.jpg"
    outside.write_bytes(encoded(PIXELS, "JPEG"))
    (root / "out.jpg").symlink_to(outside)
    assert read_code(root / "out.jpg", root=root) == "link-outside"
    assert read_file(root / "out.jpg")
    (root / "in.jpg").write_bytes(b"abc")
    (root / "near.jpg").symlink_to("in.jpg")
    assert read_file(root / "near.jpg", root=root) == b"abc"
    assert read_code(root / "in.jpg", limits=Limits(decoded_bytes=0)) == "over-budget"


def test_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(b"abc")

    def forbidden(*_: object) -> int:
        raise PermissionError(errno.EACCES, "Permission denied")

    with monkeypatch.context() as patch:
        patch.setattr(os, "open", forbidden)
        assert read_code(path) == "unreadable"


def test_a_file_that_comes_in_pieces_is_read_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.jpg"
    path.write_bytes(bytes(range(100)))
    whole = os.read
    with monkeypatch.context() as patch:
        patch.setattr(os, "read", lambda handle, count: whole(handle, min(count, 7)))
        assert read_file(path) == bytes(range(100))


def test_a_broken_index_of_pictures_is_remarked_on() -> None:
    plain = encoded(PIXELS, "JPEG")
    index = b"MPF\0" + b"MM\0*" + bytes(20)  # an index of several pictures that lists none
    broken = plain[:2] + b"\xff\xe2" + struct.pack(">H", len(index) + 2) + index + plain[2:]
    assert remarks(broken) == ["broken-exif"]  # Pillow reads the index as it reads EXIF
    assert np.array_equal(decode(broken), decode(plain))


def test_an_error_names_the_file_and_the_remedy() -> None:
    with pytest.raises(Undecodable, match=r"(?s)a\\n\.jpg: expected .* found an HTML page.*hint"):
        picture(b"<html>", name="a\n.jpg")


def test_helpers_start_without_torch_and_numpy() -> None:
    program = (
        "import sys, neocog.data.looks; "
        "print(sorted({'torch', 'numpy', 'matplotlib', 'multiprocessing'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert done.stdout.strip() == "[]"
