"""Write tables, each again and again in processes that are killed, until one ends by itself.

Run as a program: `stopped_tables.py PICTURES TABLE…`, which prints how often each was stopped. The
processes are forks of this one, which has imported everything once and has no thread. The stem of a
table says how they are stopped: `time` at a random time; `call` at a random call of fsync, before
or after it; `disk` by files that may grow to a limited size only, and further each time.
"""

from __future__ import annotations

import os
import random
import resource
import signal
import sys
import time
from pathlib import Path

from neocog.errors import RunError
from neocog.runtime import answering
from neocog.verbs.answer_files import CsvTable, ParquetTable
from neocog.verbs.answers import Wanted, write_table
from neocog.verbs.console import Console
from pretended import Pretended

ROOM = {".csv": 5_000, ".parquet": 2_000}
"""Bytes that a file may grow to, the first time."""


def write(pictures: str, table: Path, pause: float) -> None:
    """The table, or the rest of it, committed after each batch of 16."""
    answering.eval_batch = lambda _: 16  # type: ignore[assignment]
    CsvTable.seconds = ParquetTable.seconds = 0.0
    engine = Pretended(together=True, each=lambda _: time.sleep(pause))
    wanted = Wanted(to=table, sources=(pictures,), each=True)
    write_table(wanted, lambda *_: engine, Console(quiet=True))


def kill_at(call: int, after: bool) -> None:
    """This process is killed at that call of fsync."""
    real, count = os.fsync, 0

    def fsync(handle: int) -> None:
        nonlocal count
        count += 1
        if count == call and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        real(handle)
        if count == call:
            os.kill(os.getpid(), signal.SIGKILL)

    os.fsync = fsync


def attempt(pictures: str, table: Path, mode: str, turn: int, chance: random.Random) -> int:
    """Write in a process of its own; 0 done, 3 failed as it should, below 0 killed."""
    call, after, wait = chance.randrange(2, 24), chance.random() < 0.5, chance.uniform(0.2, 0.3)
    child = os.fork()
    if not child:
        code = 4
        try:
            if mode == "call":
                kill_at(call + 8 * turn, after)
            if mode == "disk":
                signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
                room = ROOM[table.suffix] * (turn + 1)
                resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
            write(pictures, table, 0.03 if mode == "time" else 0.0)
            code = 0
        except RunError as error:
            print(error.message, file=sys.stderr)
            code = 3
        finally:
            os._exit(code)
    if mode == "time":
        time.sleep(wait * 1.5**turn)  # longer each time: it ends however slow the machine is
        os.kill(child, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    pictures, chance = sys.argv[1], random.Random(0)
    for table in map(Path, sys.argv[2:]):
        for turn in range(100):
            code = attempt(pictures, table, table.stem, turn, chance)
            if code == 0:
                print(turn)
                break
            if code > 0 and code != 3:
                sys.exit(f"{table} could not be written")
        else:
            sys.exit(f"{table} never ended")


if __name__ == "__main__":
    main()
