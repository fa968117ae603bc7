"""`neocog predict` as a program, with an engine that needs no network and says each batch.

Run as `signalled_tables.py ARGUMENT…`, the arguments of `neocog`; prints a line a batch of 16.
Nothing is committed for the time that has passed.
"""

from __future__ import annotations

import signal
import sys
import time

from neocog.cli import main
from neocog.runtime import answering
from neocog.verbs.answer_files import CsvTable
from neocog.verbs.choice import Choice
from pretended import Pretended


def told(_: object) -> None:
    """One more batch."""
    print("batch", flush=True)
    time.sleep(0.1)


if __name__ == "__main__":
    # A shell lets its jobs in the background ignore SIGINT, and neocog leaves it at that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    answering.eval_batch = lambda _: 16  # type: ignore[assignment]
    CsvTable.seconds = float("inf")
    Choice.open = lambda *_: Pretended(together=True, each=told)  # type: ignore[method-assign]
    sys.argv[0] = "neocog"
    main()
