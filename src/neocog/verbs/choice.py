"""Who answers: a run's own PyTorch, an exported file, or whatever is fastest here.

Floor 5, room verbs; imports runtime and run.
"""

from __future__ import annotations

import contextlib
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from neocog.errors import ConfigError, near
from neocog.runtime import answering
from neocog.runtime.engine import KINDS
from neocog.runtime.fastest import candidates, fastest
from neocog.runtime.opened import Source, moved_on, open_engine

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from neocog.runtime.engine import Engine
    from neocog.runtime.fastest import Chosen
    from neocog.verbs.answer_state import Asks

__all__ = ["Choice"]

FEW = 500
"""Files that are answered for before two engines could be compared."""
READ = 64
"""Files that are opened for the comparison. Their samples are repeated until they are as many as
are asked about at once."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """What decides who answers."""

    path: Path
    """A run folder, or a file that `neocog export` wrote."""
    model: str = ""
    """A foreign network, named again."""
    device: str = "auto"
    """Where to compute."""
    engine: str = "auto"
    """A kind, or `auto`: for fewer files than `FEW` PyTorch, or the first that reads an exported
    file; else the fastest here."""
    threads: int = 0
    """Of the processor; 0: the engine's own number."""

    def __post_init__(self) -> None:
        if self.engine not in ("auto", *KINDS):
            raise ConfigError(f"no engine {self.engine!r}", near(self.engine, ("auto", *KINDS)))
        if self.threads < 0:
            raise ConfigError(f"expected threads from 0 on, got {self.threads}", "0: all")

    def open(
        self,
        count: int,
        paths: Callable[[], Iterator[str]],
        say: Callable[[str], None] = lambda _: None,
        begun: Asks | None = None,
    ) -> Engine:
        """The engine.

        Args:
            count: files that it will be asked about.
            paths: gives them.
            say: told who it is, where it was chosen.
            begun: a table that goes on: its engine is taken again, unless another was named.

        Raises:
            RunError: no finished run, or a file that is none of ours.
            ConfigError: a library that is missing, or an engine that cannot compute this.
        """
        source = Source.of(self.path, model=self.model)
        if source.content is not None and (warning := moved_on(self.path)):
            say(warning)
        engine = None
        if begun is not None:
            engine = self._again(source, begun)
        elif self.engine == "auto" and count >= FEW:
            engine = self._fastest(source, paths, say)
        return engine or open_engine(
            source,
            engine=self.engine,
            model=self.model,
            device=self.device,
            threads=self.threads,
        )

    def _again(self, source: Source, begun: Asks) -> Engine | None:
        """The engine of a table that goes on; None where there is none like it any more, or another
        one was named."""
        named = (("auto", self.engine), ("auto", self.device), (0, self.threads))
        was = (begun.engine, begun.device, begun.threads)
        if any(now not in (usual, old) for (usual, now), old in zip(named, was, strict=True)):
            return None
        able = candidates(source, model=self.model, device=begun.device, threads=begun.threads)
        for one in able:
            if (one.kind, one.digest) == (begun.engine, begun.digest):
                return one.make()
        return None

    def _fastest(
        self, source: Source, paths: Callable[[], Iterator[str]], say: Callable[[str], None]
    ) -> Engine | None:
        """The fastest on as many samples as are asked about at once; None where there is nothing to
        compare."""
        able = candidates(source, model=self.model, device=self.device, threads=self.threads)
        if len({one.family for one in able}) < 2:
            return None
        described = source.described
        together = answering.together(described.input)
        files = itertools.islice(paths(), READ)
        with contextlib.closing(answering.samples(described, files)) as asked:
            first = (one for one in asked if not isinstance(one.found, str))
            samples = answering.stacked(list(itertools.islice(first, together)))
        if samples is None:
            return None
        chosen = fastest(able, np.resize(samples, (together, *samples.shape[1:])))
        say(_told(chosen))
        return chosen.engine


def _told(chosen: Chosen) -> str:
    """Who it is, and why, for people."""
    engine = chosen.engine
    rates: dict[str, float] = {}
    for one in chosen.trials:
        rates[one.kind] = min(one.seconds, rates.get(one.kind, one.seconds))
    when = "measured before" if chosen.remembered else f"measured in {chosen.seconds:.1f} s"
    times = ", ".join(
        f"{kind} {1000 * seconds:.3g} ms"
        for kind, seconds in sorted(rates.items(), key=lambda one: one[1])
    )
    lines = [
        f"engine: {engine.kind}, {engine.settings.get('threads')} thread(s) ({when}: {times})",
        *(f"  not {remark}" for remark in chosen.remarks),
    ]
    return "\n".join(lines)
