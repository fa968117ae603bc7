"""Bytes of strangers → pixels and arrays, where a crash cannot hurt. Floor 4, room serve.

Imports data and protocol. Pictures are decoded, and large requests read, by helper programs
that stay open (`neocog.data.helpers`): one that dies, hangs or wants all memory takes the request
that it was at along, and is replaced.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from neocog.data.helpers import Crew, LostError, Program
from neocog.data.workers import Decoders
from neocog.errors import NeocogError
from neocog.serve import parsing, protocol
from neocog.serve.batching import ending
from neocog.serve.limits import RequestError

if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import TypeVar

    import numpy as np
    from numpy.typing import NDArray

    from neocog.data.looks import Order
    from neocog.serve.limits import Limits
    from neocog.serve.protocol import InferRequest, Spec

    T = TypeVar("T")

__all__ = ["INLINE", "Decoding"]

LARGE = 2**20
"""Bytes of a picture, or of a request whose JSON is short, that are copied and looked at one by one
while others wait; more are in a thread."""
INLINE = 8 * 2**10
"""Bytes of JSON that are read at once, in some tenths of a millisecond; more go to a helper. Twenty
requests of 32 KiB that are nothing but brackets held up all others for a third of a second."""
NAME = "image"
"""What a picture is called in messages."""
_READERS = 2
"""Helpers that read requests, at most."""


class Decoding:
    """Helpers of one event loop; models whose pictures are decoded alike can share them.

    Args:
        order: how pictures are decoded.
        workers: pictures that are decoded at once, at least one; others wait in order.
        patience: seconds after which a helper that is at one request is given up.
    """

    def __init__(self, order: Order, *, workers: int, patience: float) -> None:
        self._workers = workers
        self._patience = patience
        self._decoders = Decoders(order, workers=workers, patience=patience)
        self._readers: Crew | None = None
        self._open = True

    async def start(self) -> None:
        """Start the helpers that decode pictures; without this the first pictures do. The one that
        reads requests starts when it is first needed.

        Raises:
            NeocogError: they cannot be started.
        """
        await asyncio.gather(*map(asyncio.wrap_future, self._decoders.start()))

    async def picture(self, data: bytes) -> NDArray[np.uint8]:
        """The pixels of a picture.

        Args:
            data: the bytes of its file.

        Returns:
            H×W×C, writable.

        Raises:
            RequestError: 400, with what is wrong with the picture; 503, closed.
            NeocogError: no helper can be started.
        """
        if not self._open:
            raise ending()
        look = await self._result(self._decoders.look(NAME, data))
        if not look.usable:
            if not self._open:
                raise ending()  # its helper was ended
            reasons = [one.reason for one in look.remarks if one.policy != "accept"]
            raise RequestError(400, f"{NAME}: {reasons[0]}")
        if len(look.pixels) <= LARGE:
            return look.array()
        return await asyncio.to_thread(look.array)

    async def request(
        self, body: bytes, header_length: int | None, spec: Spec, limits: Limits
    ) -> InferRequest:
        """An inference request; see `protocol.read`. Long JSON is read by a helper.

        Args:
            body: JSON, and the binary data behind it.
            header_length: bytes of the JSON; None: all.
            spec: of the model that is asked.
            limits: of the server; the first call's also say what memory reading may take.

        Raises:
            RequestError: 400; 503, closed.
            NeocogError: no helper can be started.
            RuntimeError: reading failed by a fault of ours.
        """
        if not self._open:
            raise ending()
        if min(len(body) if header_length is None else header_length, len(body)) <= INLINE:
            if len(body) <= LARGE:
                return protocol.read(body, header_length, spec=spec, limits=limits)
            return await asyncio.to_thread(
                protocol.read, body, header_length, spec=spec, limits=limits
            )
        if self._readers is None:
            self._readers = Crew(
                min(self._workers, _READERS), _program(limits, self._patience), self._patience
            )
        crew = self._readers

        def work() -> InferRequest:
            try:
                with crew.helper().asked(parsing.question(header_length, spec, limits), body) as it:
                    first, _, third = next(it)
            except LostError as error:
                crew.replace()
                raise RequestError(
                    400, f"the program that reads requests {error.reason}"
                ) from error
            return parsing.outcome(first, third)

        return await self._result(crew.submit(work))

    async def _result(self, future: Future[T]) -> T:
        """What a helper found. Who is cancelled gives up a place among those that wait.

        Raises:
            RequestError: 503, closed meanwhile.
        """
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            # By `close`, rather than by whoever wanted the answer?
            task = asyncio.current_task()
            if self._open or (task is not None and task.cancelling()):
                raise
            raise ending() from None
        except (NeocogError, RequestError):
            if self._open:
                raise
            raise ending() from None

    def close(self) -> None:
        """End all helpers at once, whatever they are at; again, nothing."""
        self._open = False
        self._decoders.close()
        if self._readers is not None:
            self._readers.close()


def _program(limits: Limits, patience: float) -> Program:
    """`parsing.main` within these limits."""
    return Program(
        module="neocog.serve.parsing",
        setting=parsing.setting(limits, patience),
        about="request",
        deed="reads requests",
        remedy="make sure that this machine has memory and processes left",
    )
