"""Work shared out among forked processes, one a core. Standard library and neocog's `host`."""

from __future__ import annotations

import json
import os
import tempfile
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from neocog.host import cores

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["in_lanes"]


def in_lanes(jobs: Sequence[Callable[[], Any]]) -> list[Any]:
    """Do every job, in as many processes as there are cores. Call it in a process of one thread.

    Args:
        jobs: each gives a value that JSON knows, and not None.

    Returns:
        What they gave, in their order; None where one failed, which said so on standard error.
    """
    with tempfile.TemporaryDirectory(prefix="neocog-lanes-") as made:
        results = [Path(made) / f"{number}.json" for number in range(len(jobs))]
        children = []
        for lane in range(min(cores(), len(jobs))):
            child = os.fork()
            if not child:
                _work(list(zip(jobs, results, strict=True))[lane :: cores()])
            children.append(child)
        for child in children:
            os.waitpid(child, 0)
        return [json.loads(path.read_text()) if path.exists() else None for path in results]


def _work(share: Sequence[tuple[Callable[[], Any], Path]]) -> NoReturn:
    """A process of its own; must never come back into the copy of its caller."""
    code = 1
    try:
        for job, result in share:
            result.write_text(json.dumps(job()))
        code = 0
    except BaseException:  # noqa: BLE001 - see above
        traceback.print_exc()
    finally:
        os._exit(code)
