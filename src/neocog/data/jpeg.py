"""The header of a plain JPEG, at one glance. Floor 1, room data; standard library only.

Of a small picture Pillow's own reader, which gathers all that a JPEG may say of itself, takes as
long as the decoder. What nobody will ask is not read here: the segments are only stepped over, and
a file with anything out of the ordinary is left to Pillow.
"""

from __future__ import annotations

__all__ = ["plain_size"]

_FRAME = 0xC0
"""Baseline: 8 bits, not progressive."""
_SCAN = 0xDA
_PASSED = frozenset((0xC4, 0xDB, 0xDD, 0xE0, 0xFE))
"""Tables, the restart interval, JFIF and comments: nothing that changes how pixels are read. Not
among them: EXIF (how the picture lies), Adobe (its colours), profiles and further pictures."""


def plain_size(data: bytes) -> tuple[int, int, int] | None:
    """Height, width and channels (1 or 3) of a baseline JPEG; None: another one, or damaged.

    Args:
        data: the whole file. ITU-T T.81, annex B, says how it is built.

    >>> frame = bytes.fromhex("ffc0 0011 08 0020 0030 03 012200 021101 031101")
    >>> scan = bytes.fromhex("ffda 000c 03 0100 0211 0311 003f00")
    >>> plain_size(bytes.fromhex("ffd8") + frame + scan)
    (32, 48, 3)
    >>> plain_size(bytes.fromhex("ffd8 ffe1 0002") + frame + scan) is None
    True
    """
    at, size = 2, None
    try:
        while data[at] == 0xFF:
            kind = data[at + 1]
            if kind == _SCAN:
                return size
            if kind == _FRAME:
                height, width = data[at + 5] << 8 | data[at + 6], data[at + 7] << 8 | data[at + 8]
                channels = data[at + 9]
                if size is not None or data[at + 4] != 8 or channels not in (1, 3):
                    return None
                size = (height, width, channels)
            elif kind not in _PASSED:
                return None
            at += 2 + (data[at + 2] << 8 | data[at + 3])
    except IndexError:
        pass
    return None
