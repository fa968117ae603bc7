"""The callbacks that come with neocog: stop, lower the rate, keep copies, draw curves.

Floor 2, room engine; imports metrics, floor 0 and its own room (TensorBoard's writer only when
used).
`control` says what a callback is and how to write one. `EarlyStopping` and `ReduceLROnPlateau`
count as Keras does. A NaN is never an improvement.

Where the `start` event lists `metrics` (every number that epoch events will carry), a metric that
will never come is refused before the first step; else at the first epoch.
"""

from __future__ import annotations

import importlib.util
import math
import string
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeGuard

from neocog.engine.checkpoint import check_name
from neocog.engine.control import (
    Callback,
    Control,
    KeepBest,
    Remembers,
    Request,
    RestoreBest,
    Save,
    ScaleRate,
    Stop,
    check,
    recall,
    remember,
)
from neocog.errors import ConfigError, near
from neocog.metrics import direction

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from neocog.config import Recipe
    from neocog.records import Event

__all__ = [
    "Callback",
    "Control",
    "EarlyStopping",
    "KeepBest",
    "ModelCheckpoint",
    "ReduceLROnPlateau",
    "Remembers",
    "Request",
    "RestoreBest",
    "Save",
    "ScaleRate",
    "Stop",
    "TensorBoard",
    "check",
    "from_recipe",
    "recall",
    "remember",
]

Mode = Literal["auto", "min", "max"]

_NOT_MONITORED = frozenset({"epoch"})


class _Watch:
    """One metric and the best it has been."""

    def __init__(self, owner: str, monitor: str, mode: Mode, min_delta: float) -> None:
        if mode not in ("auto", "min", "max"):
            raise ConfigError(f"{owner}: mode is auto, min or max, got {mode!r}")
        if not (math.isfinite(min_delta) and min_delta >= 0):
            raise ConfigError(f"{owner}: min_delta is not negative, got {min_delta}")
        self.owner = owner
        self.monitor = monitor
        self.mode = mode
        self.min_delta = min_delta
        self.best: float | None = None

    def read(self, event: Event) -> float:
        """The metric of an epoch event.

        Raises:
            ConfigError: there is none of this name.
        """
        value = event.values.get(self.monitor)
        if not _is_number(value) or self.monitor in _NOT_MONITORED:
            self._unknown([key for key, other in event.values.items() if _is_number(other)])
        return float(value)

    def foresee(self, event: Event) -> None:
        """At the start: refuse a metric that will never come, where the run says which will."""
        metrics = _promised(event)
        if metrics is not None and self.monitor not in metrics:
            self._unknown(metrics)

    def better(self, value: float, than: float | None) -> bool:
        """Whether `value` beats `than` by more than min_delta; NaN never does."""
        if math.isnan(value):
            return False
        # By name only now: a metric that does not exist is better told by what exists.
        mode = direction(self.monitor) if self.mode == "auto" else self.mode
        sign = 1.0 if mode == "max" else -1.0
        return than is None or sign * (value - than) > self.min_delta

    def improved(self, value: float) -> bool:
        """Whether `value` is a new best, which it then is."""
        if not self.better(value, self.best):
            return False
        self.best = value
        return True

    def _unknown(self, known: Collection[str]) -> NoReturn:
        names = [name for name in known if name not in _NOT_MONITORED]
        raise ConfigError(
            f"{self.owner} watches {self.monitor!r}, which this run does not report",
            _remedy(self.monitor, names),
        )


def _remedy(name: str, known: Collection[str]) -> str:
    """What to write instead of a metric that never comes."""
    if not known:
        return ""
    if name.startswith("val_") and not any(one.startswith("val_") for one in known):
        others = ", ".join(sorted(known))
        return f"there is no validation part: set data.val, or take one of {others}"
    return near(name, known)


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _promised(event: Event) -> Collection[str] | None:
    """The numbers that epoch events will carry, where the start event says so."""
    metrics: Collection[str] | None = event.values.get("metrics")
    return metrics if event.kind == "start" else None


class EarlyStopping:
    """Stop when a metric has not improved for `patience` epochs.

    Args:
        monitor: the metric.
        min_delta: an improvement is larger than this.
        patience: epochs without improvement before the run stops; 0 counts as 1.
        mode: `min`: less is better; `max`: more is; `auto`: by name, see `metrics.direction`.
        baseline: patience starts anew only at a best that also beats this value.
        restore_best: end with the weights of the best epoch, whether the run is stopped or not,
            and whether they beat the baseline or not.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0.0,
        patience: int = 5,
        mode: Mode = "auto",
        baseline: float | None = None,
        restore_best: bool = True,
    ) -> None:
        if patience < 0:
            raise ConfigError(f"EarlyStopping: patience is not negative, got {patience}")
        self._watch = _Watch("EarlyStopping", monitor, mode, min_delta)
        self.patience = patience
        self.baseline = baseline
        self.restore_best = restore_best
        self._wait = 0
        self._best_epoch: int | None = None

    def __call__(self, event: Event, control: Control) -> None:
        """Look at an epoch."""
        watch = self._watch
        watch.foresee(event)
        if event.kind != "epoch":
            return
        value = watch.read(event)
        if self.restore_best:
            control.restore_best()
        self._wait += 1
        if watch.improved(value):
            self._best_epoch = event.values.get("epoch")
            if self.restore_best:
                control.keep_best()
            if self.baseline is None or watch.better(value, self.baseline):
                self._wait = 0
            return
        # As in Keras, the first epoch never stops a run, not even with a NaN.
        if self._wait >= self.patience and event.values.get("epoch", 0) > 1:
            best = "never a number" if watch.best is None else f"best {watch.best:.6g}"
            where = "" if self._best_epoch is None else f" in epoch {self._best_epoch}"
            epochs = f"{self._wait} epoch" + ("s" if self._wait != 1 else "")
            control.stop(f"{watch.monitor} has not improved for {epochs}: {best}{where}")

    def state(self) -> dict[str, Any]:
        """The best value, its epoch, and the epochs since."""
        return {"best": self._watch.best, "best_epoch": self._best_epoch, "wait": self._wait}

    def load(self, state: dict[str, Any]) -> None:
        """Take up where `state` was taken."""
        self._watch.best = state["best"]
        self._best_epoch = state["best_epoch"]
        self._wait = state["wait"]


class ReduceLROnPlateau:
    """Multiply the rate by `factor` when a metric has not improved for `patience` epochs.

    Args:
        monitor: the metric.
        factor: new rate = old rate · factor; in (0, 1).
        patience: epochs without improvement before a drop; 0 counts as 1.
        min_delta: an improvement is larger than this.
        cooldown: epochs after a drop in which patience does not count.
        min_lr: the rate is never lowered below this.
        mode: `min`: less is better; `max`: more is; `auto`: by name, see `metrics.direction`.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
        mode: Mode = "auto",
    ) -> None:
        if not 0 < factor < 1:
            raise ConfigError(f"ReduceLROnPlateau: factor lies in (0, 1), got {factor}")
        if min(patience, cooldown, min_lr) < 0:
            raise ConfigError("ReduceLROnPlateau: patience, cooldown and min_lr are not negative")
        self._watch = _Watch("ReduceLROnPlateau", monitor, mode, min_delta)
        self.factor = factor
        self.patience = patience
        self.cooldown = cooldown
        self.min_lr = min_lr
        self._wait = 0
        self._cooling = 0

    def __call__(self, event: Event, control: Control) -> None:
        """Look at an epoch."""
        self._watch.foresee(event)
        if event.kind != "epoch":
            return
        value = self._watch.read(event)
        if self._cooling:
            self._cooling -= 1
            self._wait = 0
        if self._watch.improved(value):
            self._wait = 0
        elif not self._cooling:
            self._wait += 1
            if self._wait >= self.patience and event.values.get("lr", math.inf) > self.min_lr:
                control.scale_rate(self.factor, self.min_lr)
                self._cooling = self.cooldown
                self._wait = 0

    def state(self) -> dict[str, Any]:
        """The best value, the epochs since, and those left to cool down."""
        return {"best": self._watch.best, "wait": self._wait, "cooling": self._cooling}

    def load(self, state: dict[str, Any]) -> None:
        """Take up where `state` was taken."""
        self._watch.best = state["best"]
        self._wait = state["wait"]
        self._cooling = state["cooling"]


class ModelCheckpoint:
    """Keep copies of the network on the way.

    Args:
        monitor: `best` by this metric.
        keep: copies after an epoch: `none`, the `best` so far, or `all`. Copies of equal name
            replace each other; others stay.
        every_steps: also write a numbered checkpoint, for resuming, every so many steps.
        weights_only: copies hold the weights alone.
        name: of the copies; fields are `epoch`, `step` and the metrics of the epoch, formatted as
            in `str.format`: `{epoch:02d}-{val_loss:.2f}`.
        mode: `min`: less is better; `max`: more is; `auto`: by name, see `metrics.direction`.

    Raises:
        ConfigError: a template that cannot be filled in, or cannot name a file.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        keep: Literal["none", "best", "all"] = "best",
        every_steps: int | None = None,
        weights_only: bool = False,
        name: str = "{epoch:02d}-{val_loss:.2f}",
        mode: Mode = "auto",
    ) -> None:
        if keep not in ("none", "best", "all"):
            raise ConfigError(f"ModelCheckpoint: keep is none, best or all, got {keep!r}")
        if every_steps is not None and every_steps < 1:
            raise ConfigError(f"ModelCheckpoint: every_steps is at least 1, got {every_steps}")
        self._watch = _Watch("ModelCheckpoint", monitor, mode, 0.0)
        self._fields = _fields(name)
        self.keep = keep
        self.every_steps = every_steps
        self.weights_only = weights_only
        self.name = name
        self._saved_step = 0

    def __call__(self, event: Event, control: Control) -> None:
        """Look at a step or an epoch."""
        if event.kind == "start":
            self._saved_step = max(self._saved_step, event.step)
            promised = _promised(event)
            if self.keep == "best":
                self._watch.foresee(event)
            if self.keep != "none" and promised is not None:
                self._check_fields({*promised, "epoch", "step"})
        elif event.kind == "step" and self.every_steps is not None:
            # By crossing, not by divisibility: step events may come every few steps only.
            if event.step // self.every_steps > self._saved_step // self.every_steps:
                self._saved_step = event.step
                control.save(None, False)
        elif event.kind == "epoch" and self.keep != "none":
            known = {key: value for key, value in event.values.items() if _is_number(value)}
            known["step"] = event.step
            self._check_fields(known)
            if self.keep == "all" or self._watch.improved(self._watch.read(event)):
                control.save(self.name.format_map(known), self.weights_only)

    def _check_fields(self, known: Collection[str]) -> None:
        for field in self._fields:
            if field not in known:
                raise ConfigError(
                    f"checkpoint.name has the field {field!r}, which this run does not report",
                    # `mae:age` is a metric, but after a colon a template expects a format.
                    _remedy(field, [name for name in known if name.isidentifier()]),
                )

    def state(self) -> dict[str, Any]:
        """The best value, and the step of the last numbered checkpoint."""
        return {"best": self._watch.best, "saved_step": self._saved_step}

    def load(self, state: dict[str, Any]) -> None:
        """Take up where `state` was taken."""
        self._watch.best = state["best"]
        self._saved_step = state["saved_step"]


def _fields(template: str) -> frozenset[str]:
    """The fields of a name template, which is tried out once.

    Raises:
        ConfigError: it cannot be filled in with numbers, or the result cannot name a file.
    """
    where = f"checkpoint.name {template!r}"
    example = "{epoch:02d}-{val_loss:.2f}"
    try:
        parsed = list(string.Formatter().parse(template))
    except ValueError as error:
        raise ConfigError(f"{where} cannot be read: {error}", example) from error
    fields = set()
    for _, field, spec, conversion in parsed:
        if field is None:
            continue
        # Only plain names: an attribute or an index could reach anything from a settings file.
        if not field.isidentifier() or conversion or "{" in (spec or ""):
            raise ConfigError(f"{where}: {{{field}}} is not the name of a metric", example)
        fields.add(field)
    sample = {field: 7 if field in ("epoch", "step") else 0.7 for field in fields}
    try:
        name = template.format_map(sample)
    except ValueError as error:
        raise ConfigError(
            f"{where} cannot be filled in: {error}; epoch and step are integers, the rest are not",
            example,
        ) from error
    check_name(name)
    return frozenset(fields)


class TensorBoard:
    """Write every number of step and epoch events for TensorBoard.

    Epoch metrics are tagged by name (`val_loss`), those of steps with `step/` in front; the
    horizontal axis is the optimiser step. A resumed run hides what the stopped one wrote past it.
    Curves never end a training: where they cannot be written, for the disk is full, they have a
    hole until an epoch ends at which they can.

    Args:
        folder: where the event files go; `tensorboard --logdir FOLDER` shows them.

    Raises:
        ConfigError: the tensorboard package is missing.
    """

    def __init__(self, folder: Path) -> None:
        if importlib.util.find_spec("tensorboard") is None:
            raise ConfigError(
                "TensorBoard files need the tensorboard package, which is not installed",
                'pip install "neocog[tensorboard]"',
            )
        self.folder = folder
        self.error: Exception | None = None
        """Why nothing is written at present."""
        self._writer: Any = None

    def __call__(self, event: Event, control: Control) -> None:
        """Write one event."""
        if event.kind == "end":
            self.close()
        elif event.kind == "epoch" or (event.kind == "step" and self.error is None):
            from torch.utils.tensorboard import SummaryWriter

            try:
                if self._writer is None:
                    self._writer = SummaryWriter(str(self.folder), purge_step=event.step)
                self._write(event)
                self.error = None
            except Exception as error:  # noqa: BLE001 - TensorFlow's own, where that is installed
                self.close()
                self.error = error

    def close(self) -> None:
        """Push everything to the disk, where it takes it; a later event opens another file."""
        writer, self._writer = self._writer, None
        if writer is not None:
            try:
                writer.close()
            except Exception as error:  # noqa: BLE001 - as above
                self.error = error

    def _write(self, event: Event) -> None:
        prefix = "step/" if event.kind == "step" else ""
        for key, value in event.values.items():
            if _is_number(value) and key not in _NOT_MONITORED:
                self._writer.add_scalar(prefix + key, value, event.step)


def from_recipe(recipe: Recipe, folder: Path) -> list[Callback]:
    """The callbacks that a recipe asks for.

    Args:
        recipe: `stop` and `plateau` are off without a patience, `checkpoint` where it keeps
            nothing, `tensorboard` unless true.
        folder: of the run; TensorBoard's files go to `tensorboard` in it.
    """
    callbacks: list[Callback] = []
    stop, plateau, copies = recipe.stop, recipe.plateau, recipe.checkpoint
    if stop.patience is not None:
        callbacks.append(
            EarlyStopping(
                monitor=stop.monitor,
                min_delta=stop.min_delta,
                patience=stop.patience,
                mode=stop.mode,
                baseline=stop.baseline,
                restore_best=stop.restore_best,
            )
        )
    if plateau.patience is not None:
        callbacks.append(
            ReduceLROnPlateau(
                monitor=plateau.monitor,
                factor=plateau.factor,
                patience=plateau.patience,
                min_delta=plateau.min_delta,
                cooldown=plateau.cooldown,
                min_lr=plateau.min_lr,
                mode=plateau.mode,
            )
        )
    if copies.keep != "none" or copies.every_steps is not None:
        callbacks.append(
            ModelCheckpoint(
                monitor=copies.monitor,
                keep=copies.keep,
                every_steps=copies.every_steps,
                weights_only=copies.weights_only,
                name=copies.name,
                mode=copies.mode,
            )
        )
    if recipe.tensorboard:
        callbacks.append(TensorBoard(folder / "tensorboard"))
    return callbacks
