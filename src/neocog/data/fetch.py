"""Downloads that are whole, checked and resumable. Floor 1, room data; standard library.

Bytes go to `NAME.part` beside the target; a broken download goes on where it stopped. The file gets
its name only when its SHA-256 is the published one, so what has the name is right.
"""

from __future__ import annotations

import hashlib
import http.client
import re
import time
import urllib.error
import urllib.request
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from neocog.data.opened import sha256_of
from neocog.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["fetch"]

_TIMEOUT = 30.0
_TRIES = 4
"""Attempts in a row that bring no byte."""
_ROUNDS = 50
"""Attempts at all."""
_CHUNK = 1 << 18
_PAUSE = 0.25
_FINAL = frozenset({400, 401, 403, 404, 405, 410, 451})
"""Answers that asking again does not change."""


class _BrokenError(Exception):
    """An attempt that ended early; the next one may go on."""


def fetch(
    url: str,
    target: Path,
    sha256: str,
    *,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Download `url` to `target` unless it is there already.

    Args:
        url: http or https.
        target: the file to be; its folder is made.
        sha256: hex digits that the content must have.
        progress: called with bytes so far and bytes in all (0: unknown).

    Raises:
        DataError: no network, an error of the server, no space, or content with another checksum
            (nothing is kept then). The hint says which file to put where by hand.
    """
    remedy = f"download {url} yourself and put it at {target}"
    if urlsplit(url).scheme not in ("http", "https"):
        raise DataError(
            f"expected an http or https address, found {url}", "other kinds are not fetched"
        )
    if target.exists():
        if sha256_of(target) == sha256:
            return
        raise DataError(
            f"{target}: expected the SHA-256 {sha256}, found another", f"delete it, or {remedy}"
        )
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        resumed = part.exists() and part.stat().st_size > 0
        found = _download(url, part, remedy, progress)
        if found != sha256 and resumed:
            # The old part may stem from another file, or a crash: once more from the start.
            part.unlink()
            found = _download(url, part, remedy, progress)
        if found != sha256:
            part.unlink()
            raise DataError(
                f"{url}: expected the SHA-256 {sha256}, found {found}; nothing was kept", remedy
            )
        part.replace(target)
    except OSError as error:
        raise DataError(f"cannot write {target}: {error.strerror or error}", remedy) from error


def _download(
    url: str, part: Path, remedy: str, progress: Callable[[int, int], None] | None
) -> str:
    """Attempt after attempt until all bytes are there; their SHA-256."""
    fruitless = 0
    for _ in range(_ROUNDS):
        before = part.stat().st_size if part.exists() else 0
        try:
            return _attempt(url, part, progress)
        except urllib.error.HTTPError as error:
            reason = f"the server answered {error.code} {error.reason}"
            error.close()
            if error.code in _FINAL:
                raise DataError(f"cannot fetch {url}: {reason}", remedy) from error
        except _BrokenError as error:
            reason = str(error)
        after = part.stat().st_size if part.exists() else 0
        fruitless = 0 if after > before else fruitless + 1
        if fruitless == _TRIES:
            break
        time.sleep(_PAUSE * 2**fruitless)
    raise DataError(f"cannot fetch {url}: {reason}", remedy)


def _opener() -> urllib.request.OpenerDirector:
    """http and https only: the usual opener would also follow a redirect to ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler,
        urllib.request.HTTPHandler,
        urllib.request.HTTPSHandler,
        urllib.request.HTTPRedirectHandler,
        urllib.request.HTTPDefaultErrorHandler,
        urllib.request.HTTPErrorProcessor,
        urllib.request.UnknownHandler,
    ):
        opener.add_handler(handler())
    return opener


def _attempt(url: str, part: Path, progress: Callable[[int, int], None] | None) -> str:
    """One request, from where the part ends; the SHA-256 of the whole.

    Raises:
        _BrokenError: the connection failed or ended early.
        urllib.error.HTTPError: the server refused.
    """
    digest = hashlib.sha256()
    have = 0
    if part.exists():
        with part.open("rb") as file:
            while block := file.read(_CHUNK):
                digest.update(block)
                have += len(block)
    request = urllib.request.Request(url, headers={"User-Agent": "neocog"})
    if have:
        request.add_header("Range", f"bytes={have}-")
    try:
        response = _opener().open(request, timeout=_TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing after the part: it is whole, or it is not of this file
            whole = re.fullmatch(r"bytes \*/(\d+)", error.headers.get("Content-Range", ""))
            error.close()
            if whole and int(whole[1]) == have:
                return digest.hexdigest()
            part.unlink()
            raise _BrokenError("the part does not belong to this file") from error
        raise
    except (urllib.error.URLError, http.client.HTTPException, OSError) as error:
        raise _BrokenError(str(getattr(error, "reason", error))) from error
    with response:
        begins = re.match(r"bytes (\d+)-", response.headers.get("Content-Range", ""))
        if response.status != 206 or begins is None or int(begins[1]) != have:
            digest, have = hashlib.sha256(), 0  # the server sends all of it
            if response.status == 206:
                part.unlink()
                raise _BrokenError("the server sent another range")
        length = response.headers.get("Content-Length", "")
        total = have + int(length) if length.isdecimal() else 0
        with part.open("ab" if have else "wb") as file:
            while True:
                try:
                    block = response.read(_CHUNK)
                except (http.client.HTTPException, OSError) as error:
                    raise _BrokenError(f"the connection broke ({error})") from error
                if not block:
                    break
                file.write(block)
                digest.update(block)
                have += len(block)
                if progress is not None:
                    progress(have, total)
        if have < total:
            raise _BrokenError(f"the connection ended after {have:,} of {total:,} bytes")
    return digest.hexdigest()
