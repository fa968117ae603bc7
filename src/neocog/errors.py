"""What neocog says when it cannot go on. Floor 0: standard library only.

Every error that a user can cause is a `NeocogError`: the message says what was expected and what
was found, the hint says what to do. Only the command line catches it.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

__all__ = [
    "ConfigError",
    "DataError",
    "NeocogError",
    "NonFiniteLossError",
    "RunError",
    "near",
]


class NeocogError(Exception):
    """The root of all errors that neocog raises on purpose.

    >>> print(NeocogError("the file is empty", hint="download it again"))
    the file is empty
      hint: download it again
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}\n  hint: {self.hint}" if self.hint else self.message


class ConfigError(NeocogError, ValueError):
    """A setting, an argument or a name that cannot be used. Exit code 2."""


class DataError(NeocogError, ValueError):
    """A data set that is refused: broken, contradictory or not what it says."""


class RunError(NeocogError):
    """A run folder, checkpoint or bundle that is missing, damaged or in the way."""


class NonFiniteLossError(NeocogError, ArithmeticError):
    """The loss became NaN or infinite; raised before the weights were touched.

    `ids` holds the ids of the samples whose loss it was.
    """

    def __init__(self, message: str, hint: str = "", *, ids: Sequence[int] = ()) -> None:
        super().__init__(message, hint)
        self.ids = tuple(ids)


def near(name: str, known: Iterable[str]) -> str:
    """A hint that names the nearest of `known`, or lists them all when none is near.

    >>> near("resnet8", ["cnn", "resnet18"])
    "did you mean 'resnet18'?"
    >>> near("zebra", ["cnn", "mlp"])
    'known: cnn, mlp'
    """
    options = sorted(set(known))
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.6)
    return f"did you mean {close[0]!r}?" if close else f"known: {', '.join(options)}"
