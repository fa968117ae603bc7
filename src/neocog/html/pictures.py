"""Pictures as data URIs, and the checks of what goes into attributes. Room html; floor 1.

May import NumPy and Pillow.
"""

from __future__ import annotations

import base64
import io
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["check_anchor", "check_colour", "check_image", "data_uri", "png_uri"]


def data_uri(pixels: NDArray[np.uint8], *, longest: int = 320) -> str:
    """A picture as a data URI.

    Small pictures stay exact (PNG); larger ones are shrunk and become JPEG where that is smaller.

    Args:
        pixels: H×W, H×W×1 or H×W×3, uint8.
        longest: longest side in pixels; a larger picture is shrunk to it.

    Raises:
        ValueError: other shapes or types.
    """
    from PIL import Image

    if pixels.dtype != "uint8" or pixels.ndim not in (2, 3) or pixels.size == 0:
        raise ValueError(f"expected H×W×C uint8, found {pixels.shape} {pixels.dtype}")
    if pixels.ndim == 3 and pixels.shape[2] not in (1, 3):
        raise ValueError(f"expected 1 or 3 channels, found {pixels.shape[2]}")
    picture = Image.fromarray(pixels[:, :, 0] if pixels.shape[2:] == (1,) else pixels)
    if max(picture.size) > longest:
        picture.thumbnail((longest, longest), Image.Resampling.LANCZOS)

    def encoded(name: str, **settings: Any) -> bytes:
        buffer = io.BytesIO()
        picture.save(buffer, name, **settings)
        return buffer.getvalue()

    if max(picture.size) > 64:
        jpeg = encoded("jpeg", quality=88, subsampling=0)
        # A photograph is no smaller as a PNG, and to make it as small as it gets takes a hundred
        # times as long as the JPEG; a quick one tells.
        if len(encoded("png", compress_level=1)) > 2 * len(jpeg):
            return _uri("jpeg", jpeg)
        return min(_uri("jpeg", jpeg), _uri("png", encoded("png", optimize=True)), key=len)
    return _uri("png", encoded("png", optimize=True))


def png_uri(data: bytes) -> str:
    """A PNG as a data URI, byte for byte: for masks, which no shrinking may blur.

    Raises:
        ValueError: no PNG.
    """
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError(f"expected the bytes of a PNG, found {data[:8]!r}")
    return _uri("png", data)


def _uri(name: str, data: bytes) -> str:
    return f"data:image/{name};base64,{base64.b64encode(data).decode()}"


def check_colour(colour: str) -> None:
    """A colour or none: it goes into a style, where other text could do more than colour.

    Raises:
        ValueError: anything but `#rrggbb`.
    """
    if colour and not re.fullmatch(r"#[0-9a-f]{6}", colour):
        raise ValueError(f"expected a colour as #rrggbb, found {colour!r}")


def check_image(image: str) -> None:
    """A data URI of a picture, or nothing.

    Raises:
        ValueError: anything else, an address above all.
    """
    if image and not re.match(r"data:image/(png|jpeg);base64,[A-Za-z0-9+/=]+\Z", image):
        raise ValueError("expected a data URI from data_uri, found another address")


def check_anchor(anchor: str) -> None:
    """A fragment of the page or none, without its `#`.

    Raises:
        ValueError: anything else, an address above all.
    """
    if anchor and not re.fullmatch(r"[a-z][a-z0-9-]*", anchor):
        raise ValueError(f"expected a fragment such as mistake-3, found {anchor!r}")
