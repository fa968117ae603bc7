"""The helper program that reads large requests. Floor 4, room serve; imports protocol and below.

JSON of 10 MiB holds Python for a third of a second, in which a server would do nothing else. No
torch: `neocog.data.helpers` starts this program, and starts it again when it is lost.
"""

from __future__ import annotations

import dataclasses
import json
import traceback
from typing import TYPE_CHECKING, Any

from neocog.data.messages import answer_all
from neocog.serve import protocol
from neocog.serve.limits import Limits, RequestError
from neocog.serve.protocol import InferRequest, Spec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = ["main", "outcome", "question", "setting"]

_OBJECTS = 48
"""Memory for reading JSON, in units of its length: a number of two characters is eight bytes in a
list, an object of its own, and a number of an array."""
_RESERVE = 256 * 2**20
"""Bytes of address space for all else."""


def setting(limits: Limits, patience: float) -> str:
    """What `main` is called with: the memory that reading may cost, and the caller's patience."""
    return json.dumps([_OBJECTS * limits.body + 2 * limits.decoded + _RESERVE, patience])


def question(header_length: int | None, spec: Spec, limits: Limits) -> bytes:
    """The first part of a question, whose third is the body."""
    return json.dumps([header_length, spec.plain(), dataclasses.asdict(limits)]).encode()


def outcome(first: bytes, third: bytes) -> InferRequest:
    """The request of an answer's parts.

    Raises:
        RequestError: the request is refused.
        RuntimeError: reading it failed, by a fault of ours, which it shows.
    """
    found: Mapping[str, Any] = json.loads(first)
    if "fault" in found:
        raise RuntimeError(f"reading a request failed:\n{found['fault']}")
    if "status" in found:
        raise RequestError(found["status"], found["text"])
    return InferRequest.unpack(found, third)


def main(setting: str) -> None:
    """Read requests until the input ends.

    Args:
        setting: of the function `setting`.
    """
    memory, patience = json.loads(setting)

    def answer(
        asked: bytes, body: bytes, sign: Callable[[], None]
    ) -> Iterator[tuple[bytes, bytes, bytes]]:
        del sign  # one request is read at one go
        header_length, plain, bounds = json.loads(asked)
        spec, limits = Spec.of(plain), Limits(**bounds)
        try:
            request = protocol.read(body, header_length, spec=spec, limits=limits)
        except RequestError as error:
            said = {"status": error.status, "text": error.text}
            yield json.dumps(said).encode(), b"", b""
        except MemoryError:
            said = {"status": 400, "text": "reading it takes more memory than it may"}
            yield json.dumps(said).encode(), b"", b""
        except Exception:  # noqa: BLE001 - the server tells its log, and the client nothing
            yield json.dumps({"fault": traceback.format_exc()}).encode(), b"", b""
        else:
            header, raw = request.pack()
            yield json.dumps(header).encode(), b"", bytes(raw)

    answer_all(answer, memory=memory, patience=patience)
