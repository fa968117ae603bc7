"""What all tests share: the folder of the independent formulas, and a cache that is thrown away."""

from __future__ import annotations

import gc
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

# Test processes run side by side; several threads in each only wait for one another. Read by torch
# when it is loaded, so it must be set before.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# `import reference` works although pytest imports test files without touching sys.path.
sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test reads or writes the user's cache; subprocesses inherit the setting."""
    before = os.environ.get("NEOCOG_CACHE")
    os.environ["NEOCOG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    yield
    if before is None:
        del os.environ["NEOCOG_CACHE"]
    else:
        os.environ["NEOCOG_CACHE"] = before


@pytest.fixture(scope="module")
def short_pauses() -> Iterator[None]:
    """For tests that look at a clock: the garbage collector does not look through what hundreds of
    other tests left, which takes it up to a second."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
