"""Bad pictures and folders: rows of the battery in `test_bad_inputs`."""

from __future__ import annotations

import itertools
import os
import shutil
import stat
import struct
import zlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from PIL import Image

from bad_sets import (
    FLAT,
    HALVES,
    HUGE,
    PLAIN,
    Case,
    chunk,
    draw,
    encoded,
    folder,
    patched,
    png,
    split_folder,
    write,
)

if TYPE_CHECKING:
    from collections.abc import Callable

JPEG = encoded(FLAT, "JPEG", quality=100, subsampling=0)
HUGE_BMP = patched(encoded(FLAT, "BMP"), 18, struct.pack("<ii", 65535, 65535))
FITS = b"".join(
    line.ljust(80)
    for line in (
        *(b"SIMPLE  =                    T", b"BITPIX  =                    8"),
        *(b"NAXIS   =                    2", b"NAXIS1  =                    8"),
        *(b"NAXIS2  =                    8", b"END"),
    )
).ljust(2880) + bytes(2880)
PSD = b"8BPS" + struct.pack(">H6xHIIHHIIIH", 1, 3, 8, 8, 8, 3, 0, 0, 0, 0) + FLAT.tobytes()
ZEROS = zlib.compress(bytes(3 * 2**20))
TEXTS = {
    "zTXt": chunk(b"zTXt", b"note\0\0" + ZEROS),
    "iTXt": chunk(b"iTXt", b"note\0\1\0\0\0" + ZEROS),
    "iCCP": chunk(b"iCCP", b"profile\0\0" + ZEROS),
}


def large(path: Path) -> None:
    """8200×8200, grey: below 89 million pixels, above 64 MiB."""
    rows = zlib.compress(bytes(8200 * 8201), 1)
    write(png(8200, 8200, chunk(b"IDAT", rows), color=0), path)


def special(path: Path) -> None:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("only root may make a device")


def outward(path: Path) -> None:
    outside = path.parents[2] / "outside.png"
    outside.write_bytes(PLAIN)
    path.symlink_to(outside)


def unreadable(path: Path) -> None:
    write(PLAIN, path)
    path.chmod(0)


NEXT = itertools.count(1000)


def another(path: Path) -> None:
    """A large picture unlike any before: the pack must decode it again."""
    write(encoded(draw(next(NEXT), 200)), path)


def beside(path: Path, sibling: str) -> None:
    """A second folder, spelled nearly like the first."""
    write(PLAIN, path.parent / sibling / "x.png")
    write(PLAIN, path / "y.png")


def copied(path: Path) -> None:
    shutil.copy(path.parents[2] / "train" / "cat" / "0.png", path)


def exif(turn: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = turn
    return found


def skipped(item: str, variant: str, plant: Callable[[Path], None], code: str, **more: Any) -> Case:
    """A picture that is left out."""
    start = {"item": f"Images: {item}", "variant": variant, "good": folder, "name": "cat/bad.jpg"}
    return Case(**{**start, "plant": plant, "expected": (code,), **more})


def shown(item: str, variant: str, content: bytes, code: str, **more: Any) -> Case:
    """A picture that is used, with a remark."""
    start = {"item": f"Images: {item}", "variant": variant, "good": folder, "name": "cat/odd.png"}
    return Case(**{**start, "plant": partial(write, content), "expected": (code,), **more})


FOREIGN = "EPS, PDF, FITS or PSD renamed .png (give the decoder a list of allowed formats)"
BUDGET = (
    "a file under the pixel limit that still decodes to more than the byte budget "
    "(64 MiB a sample by default)"
)
LINK = "symbolic link that leaves the root or loops"
MODES = "CMYK, palette or alpha (converted to RGB)"
EXIF = "EXIF orientation (applied), broken EXIF or ICC"
ODD = "odd or non-UTF-8 names (escaped in reports)"

SKIPPED_IMAGES = (
    skipped("empty file", "", Path.touch, "empty-file"),
    *(
        skipped("truncated JPEG", f"{share} %", partial(write, JPEG[:cut]), "truncated")
        for share, cut in ((5, len(JPEG) // 20), (50, len(JPEG) // 2), (99, len(JPEG) - 2))
    ),
    *(
        skipped("HTML or a Git-LFS pointer named .jpg", name, partial(write, content), name)
        for name, content in {
            "html": b"<!DOCTYPE html>\n<html><body>404</body></html>",
            "git-lfs-pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 9",
        }.items()
    ),
    *(
        skipped(FOREIGN, name, partial(write, content), "foreign-format", name="dog/bad.png")
        for name, content in {
            "EPS": encoded(FLAT, "EPS"),
            "PDF": encoded(FLAT, "PDF"),
            "FITS": FITS,
            "PSD": PSD,
        }.items()
    ),
    *(
        skipped("65535² header", name, partial(write, content), "pixel-limit")
        for name, content in {
            "PNG": png(65535, 65535, chunk(b"IDAT", b"")),
            "JPEG": patched(JPEG, JPEG.index(b"\xff\xc0") + 5, HUGE),
            "GIF": patched(encoded(FLAT, "GIF"), 6, HUGE),
            "BMP": HUGE_BMP,
            "PPM": b"P6 65535 65535 255\n",
        }.items()
    ),
    skipped(BUDGET, "", large, "over-budget", name="cat/bad.png"),
    *(
        skipped(
            "PNG text-chunk bomb",
            name,
            partial(write, PLAIN[:33] + text + PLAIN[33:]),
            "text-bomb",
            name="cat/bad.png",
        )
        for name, text in TEXTS.items()
    ),
    skipped(
        "PNG text-chunk bomb",
        "after the pixels",
        partial(write, PLAIN[:-12] + TEXTS["zTXt"] + PLAIN[-12:]),
        "text-bomb",
        name="cat/bad.png",
    ),
    *(
        skipped(
            "1×20000 strip when a minimum side is set",
            f"{shape[0]}×{shape[1]}",
            partial(write, encoded(np.zeros(shape, np.uint8))),
            "too-small",
            name="cat/bad.png",
            options={"minimum_side": 2},
        )
        for shape in ((1, 20000), (20000, 1))
    ),
    *(
        skipped("FIFO, device or directory named x.jpg", what, make, "not-a-file", name="cat/x.jpg")
        for what, make in {"FIFO": os.mkfifo, "device": special, "directory": Path.mkdir}.items()
    ),
    skipped(LINK, "leaves", outward, "link-outside"),
    skipped(LINK, "loops", lambda path: path.symlink_to(path.name), "link-loop"),
    skipped(
        LINK,
        "to a folder",
        lambda path: path.symlink_to(path.parents[1]),
        "linked-folder",
        name="cat/up",
    ),
    skipped("unreadable file", "", unreadable, "unreadable"),
    skipped("file changed since the scan", "", another, "changed", during=another),
)

ACCEPTED_IMAGES = (
    shown("PNG without its end", "", PLAIN[:-12], "no-end", shows=FLAT),
    shown(
        "animated GIF (frame 0)",
        "",
        encoded(FLAT, "GIF", save_all=True, append_images=[Image.fromarray(255 - FLAT)]),
        "animated",
        name="cat/odd.gif",
        shows=FLAT,
    ),
    shown(
        MODES,
        "CMYK",
        encoded(Image.fromarray(FLAT).convert("CMYK"), "JPEG", quality=100),
        "cmyk",
        name="cat/odd.jpg",
        shows=FLAT,
        within=6,
    ),
    shown(MODES, "palette", encoded(Image.fromarray(FLAT).quantize()), "palette", shows=FLAT),
    shown(
        MODES,
        "alpha",
        encoded(np.dstack([FLAT, np.arange(64, dtype=np.uint8).reshape(8, 8)])),
        "alpha",
        shows=FLAT,
    ),
    shown(
        EXIF,
        "orientation of a PNG",
        encoded(draw(7), exif=exif(6)),
        "orientation",
        shows=np.rot90(draw(7), -1),
    ),
    shown(
        EXIF,
        "orientation of a JPEG",
        encoded(HALVES, "JPEG", quality=100, subsampling=0, exif=exif(3)),
        "orientation",
        name="cat/odd.jpg",
        shows=HALVES[::-1, ::-1],
        within=6,
    ),
    shown(
        EXIF,
        "broken EXIF",
        encoded(FLAT, "JPEG", quality=100, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\xff garbage"),
        "broken-exif",
        name="cat/odd.jpg",
        shows=FLAT,
        within=6,
    ),
    shown(EXIF, "broken ICC", encoded(FLAT, icc_profile=b"none"), "broken-icc", shows=FLAT),
    *(
        shown(ODD, what, PLAIN, "odd-name", name=os.fsdecode(raw), reported=escaped, shows=FLAT)
        for what, raw, escaped in (
            ("control characters", b"cat/a\n\x1b[2J.png", "cat/a\\n\\x1b[2J.png"),
            ("non-UTF-8", b"cat/caf\xe9.png", "cat/caf\\xe9.png"),
            ("right to left", "cat/a\u202egnp.png".encode(), "cat/a\\u202egnp.png"),
        )
    ),
    Case(
        item="Images: the same bytes in train and test",
        good=split_folder,
        name="test/dog/twin.png",
        plant=copied,
        expected=("duplicate",),
        shows=draw(0),
    ),
)

REFUSED_IMAGES = tuple(
    Case(
        item="Images: 16-bit images unless the caller declares them",
        variant=what,
        good=folder,
        name="cat/deep.png",
        plant=partial(write, content),
        expected=("expected 8 bits a channel", "1 × 16-bit", "convert"),
    )
    for what, content in {
        "grey PNG": encoded(np.zeros((8, 8), np.uint16)),
        "RGB PNG": png(8, 8, chunk(b"IDAT", zlib.compress(bytes(8 * 49))), bits=16),
        "TIFF": encoded(np.zeros((8, 8), np.uint16), "TIFF"),
        "PPM": b"P6 8 8 65535\n" + bytes(384),
    }.items()
)

FOLDERS = (
    Case(
        item="Folders: empty class",
        good=folder,
        name="emu",
        plant=Path.mkdir,
        expected=("found none in 'emu'", "remove the folder"),
    ),
    Case(
        item="Folders: a single class",
        good=folder,
        name="dog",
        plant=shutil.rmtree,
        reported="cat",
        expected=("at least two classes", "add another class"),
    ),
    Case(
        item="Folders: names that differ only by case or Unicode form",
        variant="case",
        good=folder,
        name="emu",
        plant=partial(beside, sibling="Emu"),
        expected=("'Emu'", "'emu'", "differ only by case", "rename"),
    ),
    Case(
        item="Folders: names that differ only by case or Unicode form",
        variant="Unicode form",
        good=folder,
        name="caf\u00e9",
        plant=partial(beside, sibling="cafe\u0301"),
        reported="caf\\xe9",
        expected=("'cafe\\u0301'", "Unicode form", "rename"),
    ),
    *(
        Case(
            item="Folders: train, val and test with different classes",
            variant=part,
            good=split_folder,
            name=f"{part}/emu/x.png",
            plant=partial(write, PLAIN),
            reported="emu",
            expected=(f"the {part} part has the class 'emu'", "cat, dog"),
        )
        for part in ("val", "test")
    ),
    *(
        Case(
            item="Folders: stray files",
            variant=where,
            good=folder,
            name=name,
            plant=partial(write, b"notes"),
            expected=("stray-file",),
            adds=0,
        )
        for where, name in {"in a class": "cat/Thumbs.db", "beside": "read me.txt"}.items()
    ),
)
