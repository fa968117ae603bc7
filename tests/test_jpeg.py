"""Small JPEGs by the short way: the same pixels as by Pillow's own reader, or none."""

from __future__ import annotations

import io
import struct
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from neocog.data import decode
from neocog.data.files import Limits
from neocog.data.jpeg import plain_size


def encoded(seed: int, size: tuple[int, int], mode: str = "RGB", **how: Any) -> bytes:
    """A JPEG of noise, H×W."""
    channels = {"L": 1, "RGB": 3, "CMYK": 4}[mode]
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, channels), dtype=np.uint8)
    image = Image.fromarray(pixels.squeeze(2) if mode == "L" else pixels, mode=None)
    if mode == "CMYK":
        image = Image.frombytes("CMYK", (size[1], size[0]), pixels.tobytes())
    file = io.BytesIO()
    image.save(file, "JPEG", **how)
    return file.getvalue()


def long_way(data: bytes, **options: Any) -> decode.Picture | str:
    """What Pillow's own reader makes of it, or the code of the fault."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decode, "_small", lambda *_: None)
        return any_way(data, **options)


def any_way(data: bytes, **options: Any) -> decode.Picture | str:
    """What `picture` makes of it, or the code of the fault."""
    try:
        return decode.picture(data, name="picture", **options)
    except decode.Undecodable as error:
        return error.remark.code


@given(
    seed=st.integers(0, 99),
    size=st.tuples(st.integers(1, 128), st.integers(1, 128)),
    grey=st.booleans(),
    quality=st.integers(1, 100),
    subsampling=st.integers(0, 2),
    comment=st.binary(max_size=8),
    restart=st.integers(0, 3),
    cover=st.sampled_from([None, (8, 8), (32, 24), (128, 128)]),
    whole=st.sampled_from([0, 64, 128]),
)
def test_the_short_way_gives_what_pillow_gives(
    seed: int,
    size: tuple[int, int],
    grey: bool,
    quality: int,
    subsampling: int,
    comment: bytes,
    restart: int,
    cover: tuple[int, int] | None,
    whole: int,
) -> None:
    data = encoded(
        seed,
        size,
        "L" if grey else "RGB",
        quality=quality,
        subsampling=subsampling,
        comment=comment,
        restart_marker_blocks=restart,
    )
    assert plain_size(data) == (*size, 1 if grey else 3)
    found = any_way(data, cover=cover, whole=whole)
    assert found == long_way(data, cover=cover, whole=whole)
    assert isinstance(found, decode.Picture)
    if cover is None:
        expected = np.asarray(Image.open(io.BytesIO(data))).reshape(*size, -1)
        assert np.array_equal(found.array(), expected)


@given(
    seed=st.integers(0, 3),
    grey=st.booleans(),
    wounds=st.lists(st.tuples(st.integers(0, 10_000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 10_000),
    more=st.binary(max_size=4),
)
def test_damage_is_judged_as_the_long_way_judges_it(
    seed: int, grey: bool, wounds: list[tuple[int, int]], cut: int, more: bytes
) -> None:
    """The same picture, or the same fault."""
    whole = bytearray(encoded(seed, (9, 14), "L" if grey else "RGB"))
    for place, value in wounds:
        whole[place % len(whole)] = value
    data = bytes(whole[: cut if 0 < cut < len(whole) else None]) + more
    assert any_way(data) == long_way(data)


def segment(kind: int, data: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, kind, len(data) + 2) + data


@pytest.mark.parametrize(
    "data",
    [
        encoded(0, (16, 16), progressive=True),
        encoded(0, (16, 16), "CMYK"),
        encoded(0, (16, 16), icc_profile=bytes(200)),
        encoded(0, (16, 16), exif=Image.Exif()),
        encoded(0, (16, 16))[:2] + segment(0xEE, b"Adobe" + bytes(7)) + encoded(0, (16, 16))[2:],
        encoded(0, (16, 16))[:40],
        b"\xff\xd8\xff",
        b"",
    ],
    ids=["progressive", "cmyk", "profile", "exif", "adobe", "cut", "start", "empty"],
)
def test_anything_out_of_the_ordinary_goes_the_long_way(data: bytes) -> None:
    assert plain_size(data) is None


@pytest.mark.parametrize(
    ("limits", "code"),
    [
        (Limits(minimum_side=17), "too-small"),
        (Limits(pixels=255), "pixel-limit"),
        (Limits(decoded_bytes=300), "over-budget"),
    ],
)
def test_limits_hold(limits: Limits, code: str) -> None:
    assert any_way(encoded(0, (16, 16)), limits=limits) == code


def test_what_the_short_way_says_is_cheap_the_reckoning_never_refuses() -> None:
    """The least budget at which it is taken lets the long way pass."""
    for size in ((1, 128), (128, 1), (128, 128), (7, 90)):
        data = encoded(1, size)
        for cover in (None, (256, 256)):
            for budget in range(0, 40_000_000, 50_000):
                limits = Limits(decoded_bytes=budget)
                if decode._small(data, cover, 0, limits) is not None:
                    assert long_way(data, cover=cover, limits=limits) == any_way(
                        data, cover=cover, limits=limits
                    )
                    break
