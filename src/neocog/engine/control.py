"""What a callback is, and what it may ask for. Floor 2, room engine.

Imports floor 0 and this room. A callback is any callable that takes `(event, control)`: it reads
what happened and asks for what it wants. It never touches the network; the engine does what was
asked, after every callback has seen the event. One that remembers something offers
`state() -> dict` (JSON values) and `load(state)`, and survives a resume.

    def stop_at_99(event, control):
        if event.kind == "epoch" and event.values["val_accuracy"] > 0.99:
            control.stop("good enough")
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, runtime_checkable

from neocog.engine.checkpoint import check_name
from neocog.errors import ConfigError, RunError
from neocog.records import Event

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Callback",
    "Control",
    "KeepBest",
    "Remembers",
    "Request",
    "RestoreBest",
    "Save",
    "ScaleRate",
    "Stop",
    "check",
    "recall",
    "remember",
]


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run after this event."""

    reason: str
    """For people."""


@dataclass(frozen=True, slots=True)
class ScaleRate:
    """Multiply all rates from here on; see `schedule.lowered`."""

    factor: float
    """In (0, 1)."""
    floor: float
    """The rate is not lowered below this."""


@dataclass(frozen=True, slots=True)
class Save:
    """Write a checkpoint."""

    name: str | None
    """Without the suffix. None: a numbered one, for resuming."""
    weights_only: bool
    """Leave out the optimiser."""


@dataclass(frozen=True, slots=True)
class KeepBest:
    """Keep the present weights as the best so far, in place of those kept before."""


@dataclass(frozen=True, slots=True)
class RestoreBest:
    """When the run ends, whatever ends it, go back to the weights that were kept. Asking twice is
    asking once; where none were kept, the last ones stay."""


Request: TypeAlias = Stop | ScaleRate | Save | KeepBest | RestoreBest


class Control:
    """What a callback may ask for. The engine drains it after each event."""

    def __init__(self) -> None:
        self._requests: list[Request] = []

    def stop(self, reason: str = "a callback asked for it") -> None:
        """End the run after this event."""
        self._requests.append(Stop(reason))

    def scale_rate(self, factor: float, floor: float = 0.0) -> None:
        """Multiply all rates from here on by `factor`, but never lower one below `floor`.

        Raises:
            ConfigError: a factor that is not positive.
        """
        if not factor > 0:
            raise ConfigError(f"the rate is scaled by a factor above 0, got {factor}")
        self._requests.append(ScaleRate(factor, floor))

    def save(self, name: str | None = None, weights_only: bool = False) -> None:
        """Write a checkpoint: `name` without the suffix; None: a numbered one, for resuming.

        Raises:
            ConfigError: a name that no file may have.
        """
        if name is not None:
            check_name(name)
        self._requests.append(Save(name, weights_only))

    def keep_best(self) -> None:
        """Keep the present weights as the best so far."""
        self._requests.append(KeepBest())

    def restore_best(self) -> None:
        """End the run, whenever it ends, with the weights that were kept."""
        self._requests.append(RestoreBest())

    def drain(self) -> tuple[Request, ...]:
        """All requests since the last call, in order."""
        requests, self._requests = tuple(self._requests), []
        return requests


Callback: TypeAlias = Callable[[Event, Control], None]


@runtime_checkable
class Remembers(Protocol):
    """A callback whose memory goes into checkpoints."""

    def state(self) -> dict[str, Any]:
        """JSON values."""

    def load(self, state: dict[str, Any]) -> None:
        """Take up where `state` was taken."""


def check(callback: Any) -> Callback:
    """The callback itself, if the engine can call it with `(event, control)`.

    Raises:
        ConfigError: what was expected, what came, and an example.

    >>> check(lambda event: None)
    Traceback (most recent call last):
        ...
    neocog.errors.ConfigError: a callback takes (event, control); <lambda>(event) does not
      hint: def callback(event, control): ...
    """
    hint = "def callback(event, control): ..."
    name = getattr(callback, "__name__", type(callback).__name__)
    if inspect.isclass(callback):
        raise ConfigError(
            f"a callback is a function or an object; {name} is a class", f"pass {name}(...)"
        )
    if not callable(callback):
        raise ConfigError(
            f"a callback is called with (event, control); {callback!r} cannot be", hint
        )
    code: Any = callback if inspect.isroutine(callback) else type(callback).__call__
    for test, kind in (
        (inspect.iscoroutinefunction, "async"),
        (inspect.isasyncgenfunction, "async"),
        (inspect.isgeneratorfunction, "a generator"),
    ):
        # Calling one of these does nothing at all, without a word.
        if test(code) or test(callback):
            raise ConfigError(f"a callback is a plain function; {name} is {kind}", hint)
    try:
        signature = inspect.signature(callback)
    except ValueError as error:
        raise ConfigError(f"the arguments of {name} cannot be found out", hint) from error
    try:
        signature.bind(object(), object())
    except TypeError as error:
        raise ConfigError(
            f"a callback takes (event, control); {name}{signature} does not", hint
        ) from error
    if hasattr(callback, "state") != hasattr(callback, "load"):
        raise ConfigError(
            f"{name} has only one of state() and load(state)",
            "give it both to survive a resume, or neither",
        )
    checked: Callback = callback
    return checked


def remember(callbacks: Sequence[Callback]) -> dict[str, Any]:
    """What the callbacks remember, by class name (and #2, #3, … among equals)."""
    return {name: one.state() for name, one in _remembering(callbacks)}


def recall(callbacks: Sequence[Callback], saved: Mapping[str, Any]) -> None:
    """Give back what `remember` took. Callbacks that are new to the run start fresh."""
    for name, one in _remembering(callbacks):
        if name in saved:
            try:
                one.load(dict(saved[name]))
            except (KeyError, TypeError, ValueError) as error:
                raise RunError(f"the checkpoint's memory of {name} cannot be used") from error


def _remembering(callbacks: Sequence[Callback]) -> list[tuple[str, Remembers]]:
    found: list[tuple[str, Remembers]] = []
    counts: dict[str, int] = {}
    everything: Sequence[object] = callbacks
    for one in everything:
        if isinstance(one, Remembers):
            name = type(one).__name__
            counts[name] = counts.get(name, 0) + 1
            found.append((name if counts[name] == 1 else f"{name}#{counts[name]}", one))
    return found
