"""Answers as rows of a table: which columns there are, and what stands in them.

Floor 5, room verbs; imports runtime's nouns and floor 0. Columns that every table of a task has
come first, those with a number for each class behind them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.errors import ConfigError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from neocog.described import Described
    from neocog.runtime.answering import Answered

__all__ = ["Columns", "Row", "harmless"]

Row = tuple[list[Any], "NDArray[Any] | None"]
"""What stands in `Columns.plain`, None for nothing; and in `Columns.numbers`, None where the sample
could not be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """The columns of a table."""

    plain: tuple[str, ...]
    """Those with a text or a probability."""
    numbers: tuple[str, ...]
    """Those with a number each: all of them or none."""
    wide: bool
    """The numbers are float64; else float32."""
    task: str
    """Of which the answers are."""
    classes: tuple[str, ...]
    """As the network has them, where the numbers are theirs."""

    @staticmethod
    def of(described: Described, *, each: bool, drawn: Sequence[str]) -> Columns:
        """The columns for a network.

        Numbers of a regression, and shares of the picture where each pixel is answered for, always
        have columns.

        Args:
            described: the network.
            each: also a column for the probability of each class.
            drawn: `mask` and `overlay`, as far as they are written.

        Raises:
            ConfigError: `each` for a task without probabilities of classes.
        """
        task, names = described.task.name, _names(described)
        plain = {"regress": ("path", "error"), "segment": ("path", "label", "error")}.get(
            task, ("path", "label", "probability", "error")
        )
        if each and task not in ("classify", "multilabel"):
            raise ConfigError(
                f"--all adds the probability of each class, and task {task} has none",
                "leave --all out",
            )
        plain += tuple(drawn)
        shown = names if each or task in ("regress", "segment") else ()
        return Columns(
            plain=plain,
            numbers=_apart(shown, plain),
            wide=task == "segment",
            task=task,
            classes=shown,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """All of them, in order."""
        return self.plain + self.numbers

    def row(self, one: Answered) -> Row:
        """What stands in them for a sample."""
        values = [one.entry.get(name) for name in self.plain]
        shown = [printable(value) if isinstance(value, str) else value for value in values]
        shown[0] = harmless(str(shown[0]))
        return shown, self._numbers(one)

    def _numbers(self, one: Answered) -> NDArray[Any] | None:
        if "error" in one.entry or not self.numbers:
            return None
        if self.task == "segment":
            shares = one.entry["shares"]
            return np.array([shares.get(name, 0.0) for name in self.classes])
        assert one.numbers is not None
        return one.numbers


def harmless(path: str) -> str:
    """A path that no spreadsheet takes for a formula: the same file, named from its folder.

    >>> harmless("=1+2.png"), harmless("photos/=1+2.png")
    ('./=1+2.png', 'photos/=1+2.png')
    """
    return f"./{path}" if path.startswith(("=", "+", "-", "@")) else path


def _names(described: Described) -> tuple[str, ...]:
    """What the numbers of a row are called."""
    if described.task.name != "regress":
        return described.classes
    from neocog import tasks

    return tuple(tasks.build(described.task).classes)


def _apart(names: Sequence[str], taken: Sequence[str]) -> tuple[str, ...]:
    """The names, those that are taken with a number behind them.

    >>> _apart(["cat", "path", "path 2"], ["path"])
    ('cat', 'path 3', 'path 2')
    """
    wanted = [printable(name) for name in names]
    used, found = {*taken, *wanted}, list[str]()
    seen = set(taken)
    for name in wanted:
        free, number = name, 1
        while free in seen:
            number += 1
            if f"{name} {number}" not in used:
                free = f"{name} {number}"
        seen.add(free)
        used.add(free)
        found.append(free)
    return tuple(found)
