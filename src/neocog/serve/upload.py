"""The one picture that a body holds. Floor 4, room serve; imports python-multipart (extra
`serve`) where a form is read.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from neocog.serve.limits import RequestError

if TYPE_CHECKING:
    from neocog.serve.incoming import Incoming

__all__ = ["check_kind", "picture_of"]

PARTS = 8
"""Of a form."""
PIECE = 2**18
"""Bytes of a form that are read at once; others are served in between."""
FORM = "multipart/form-data"
PLAIN = ("", "application/octet-stream", "application/x-www-form-urlencoded")
"""Types of content under which a picture may come, besides `image/…`; the last one is what
`curl --data-binary` says."""


def check_kind(kind: str) -> None:
    """That a picture may come under this type.

    Raises:
        RequestError: 415.
    """
    if kind != FORM and kind not in PLAIN and not kind.startswith("image/"):
        raise RequestError(
            415, "expected a picture: image/…, application/octet-stream or multipart/form-data"
        )


async def picture_of(incoming: Incoming, body: bytes) -> bytes:
    """The bytes of the picture.

    Args:
        incoming: the request, for its header.
        body: all of it.

    Raises:
        RequestError: 400, no picture, or a form that cannot be read or holds several files.
    """
    if incoming.kind == FORM:
        body = await _file_of_form(incoming.header(b"content-type"), body)
    if not body:
        raise RequestError(400, "expected the bytes of a picture, found none")
    return body


async def _file_of_form(content_type: str, body: bytes) -> bytes:
    """The one file of a form."""
    from python_multipart.exceptions import FormParserError
    from python_multipart.multipart import MultipartParser, parse_options_header

    form, whole = _Form(), memoryview(body)
    try:
        boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
        if not 1 <= len(boundary) <= 70:  # RFC 2046, 5.1.1
            raise RequestError(400, "expected multipart/form-data with a boundary")
        parser = MultipartParser(
            boundary,
            {
                "on_part_begin": form.begin,
                "on_header_field": form.field,
                "on_header_value": form.value,
                "on_header_end": form.header_end,
                "on_part_data": form.data,
                "on_part_end": form.end,
                "on_end": form.finish,
            },
        )
        for start in range(0, len(body), PIECE):
            form.piece, form.place = body[start : start + PIECE], start
            parser.write(form.piece)
            await asyncio.sleep(0)
        parser.finalize()
    except FormParserError as error:
        raise RequestError(400, "expected multipart/form-data, found a damaged form") from error
    if not form.finished:
        raise RequestError(400, "expected multipart/form-data, found a form without its end")
    if len(form.files) != 1:
        raise RequestError(400, f"expected one file in the form, found {len(form.files)}")
    return b"".join(whole[one] if isinstance(one, slice) else one for one in form.files[0])


class _Form:
    """What the parser finds: the files, and no other fields.

    A file is told as the places of its parts in the body, so that it is in memory once more at the
    end, and not while it is looked for; what the parser held back is told as bytes.
    """

    def __init__(self) -> None:
        self.files: list[list[slice | bytes]] = []
        self.piece, self.place = b"", 0
        self.parts = 0
        self.finished = False
        self.name, self.said = b"", b""
        self.is_file = False
        self.current: list[slice | bytes] = []

    def begin(self) -> None:
        self.parts += 1
        if self.parts > PARTS:
            raise RequestError(400, f"expected at most {PARTS} parts in the form")
        self.name, self.said, self.is_file, self.current = b"", b"", False, []

    def field(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def value(self, data: bytes, start: int, end: int) -> None:
        self.said += data[start:end]

    def header_end(self) -> None:
        from python_multipart.multipart import parse_options_header

        if self.name.lower() == b"content-disposition":
            self.is_file = b"filename" in parse_options_header(self.said)[1]
        elif self.name.lower() == b"content-transfer-encoding" and (
            self.said.strip().lower() not in (b"binary", b"8bit", b"7bit")
        ):
            raise RequestError(400, "expected a file in the form as it is, found it encoded")
        self.name, self.said = b"", b""

    def data(self, data: bytes, start: int, end: int) -> None:
        if self.is_file:
            at = self.place
            self.current.append(
                slice(at + start, at + end) if data is self.piece else bytes(data[start:end])
            )

    def end(self) -> None:
        if self.is_file:
            self.files.append(self.current)

    def finish(self) -> None:
        self.finished = True
