"""Callbacks: counted by hand as Keras counts, and refused where they could not work."""

from __future__ import annotations

import errno
import functools
import json
import math
from typing import TYPE_CHECKING, Any

import pytest

from neocog.config import Recipe
from neocog.engine import callbacks
from neocog.engine.callbacks import (
    Control,
    EarlyStopping,
    KeepBest,
    ModelCheckpoint,
    ReduceLROnPlateau,
    RestoreBest,
    Save,
    ScaleRate,
    Stop,
    TensorBoard,
    check,
    from_recipe,
    recall,
    remember,
)
from neocog.errors import ConfigError, RunError
from neocog.records import Event
from neocog.settings import from_dict

if TYPE_CHECKING:
    from pathlib import Path

NAN = math.nan


def epoch(number: int, **values: Any) -> Event:
    return Event(
        step=number * 100, kind="epoch", values={"epoch": number, **values}, time=float(number)
    )


def play(callback: Any, losses: list[float], first: int = 1, **more: Any) -> list[set[type]]:
    """What was asked for after each epoch of `val_loss`."""
    control, asked = Control(), []
    for number, loss in enumerate(losses, first):
        callback(epoch(number, val_loss=loss, **more), control)
        asked.append({type(request) for request in control.drain()})
    return asked


def stops_after(losses: list[float], **settings: Any) -> int | None:
    """The epoch that stops the run."""
    asked = play(EarlyStopping(**settings), losses)
    return next((number for number, one in enumerate(asked, 1) if Stop in one), None)


@pytest.mark.parametrize(
    ("losses", "settings", "stop"),
    [
        ([3, 2, 1, 1, 1, 1], {"patience": 2}, 5),
        ([3, 2, 1, 1, 0.9, 1, 1], {"patience": 2}, 7),
        ([3, 2, 1, 2], {"patience": 1}, 4),
        ([3, 2, 1, 2], {"patience": 0}, 4),
        ([3, 2.9, 2.8, 2.7], {"patience": 2, "min_delta": 0.5}, 3),
        ([3, 2.5, 2.5], {"patience": 2, "min_delta": 0.5}, 3),
        ([3, 2.4, 1.8, 1.2], {"patience": 1, "min_delta": 0.5}, None),
        # Small steps add up: the best moves only when it is beaten by more than min_delta.
        ([3, 2.7, 2.4, 2.1, 1.8], {"patience": 2, "min_delta": 0.5}, None),
        ([1, 2, 3, 4], {"patience": 2, "mode": "max"}, None),
        ([4, 3, 2], {"patience": 2, "mode": "max"}, 3),
        # Never beats the baseline: patience runs from the start, though the best improves …
        ([3, 2, 1.5, 1.4, 1.6], {"patience": 3, "baseline": 1.0}, 5),
        # … but an epoch that sets a new best never stops the run itself.
        ([3, 2, 1.5, 1.4, 1.3, 1.2], {"patience": 2, "baseline": 1.0}, None),
        ([3, 0.9, 1, 1, 1], {"patience": 3, "baseline": 1.0}, 5),
        ([NAN, NAN, NAN], {"patience": 2}, 2),
        ([NAN, NAN, NAN], {"patience": 1}, 2),  # not in the first epoch
        ([3, NAN, 2, NAN, NAN], {"patience": 2}, 5),
        ([math.inf, 5, 4], {"patience": 1}, None),
    ],
)
def test_early_stopping_counts(losses: list[float], settings: dict, stop: int | None) -> None:
    assert stops_after(losses, **settings) == stop


def test_the_best_weights_are_kept_whenever_they_are_the_best() -> None:
    asked = play(EarlyStopping(patience=9, baseline=0.1), [3, NAN, 2, 2.5, 1])
    assert [KeepBest in one for one in asked] == [True, False, True, False, True]
    assert all(RestoreBest in one for one in asked)
    asked = play(EarlyStopping(patience=9, restore_best=False), [3, 2])
    assert asked == [set(), set()]


def test_the_reason_is_for_people() -> None:
    control = Control()
    callback = EarlyStopping(patience=2, restore_best=False)
    for number, loss in enumerate([0.5, 0.25, 0.3, 0.3], 1):
        callback(epoch(number, val_loss=loss), control)
    assert control.drain() == (
        Stop("val_loss has not improved for 2 epochs: best 0.25 in epoch 2"),
    )
    assert control.drain() == ()


def drops(losses: list[float], lr: float = 1.0, **settings: Any) -> list[int]:
    """The epochs after which the rate is lowered."""
    asked = play(ReduceLROnPlateau(**settings), losses, lr=lr)
    return [number for number, one in enumerate(asked, 1) if ScaleRate in one]


@pytest.mark.parametrize(
    ("losses", "settings", "want"),
    [
        ([3, 2, 2, 2, 2, 2], {"patience": 2}, [4, 6]),
        ([3, 2, 2, 2, 2, 2, 2, 2], {"patience": 2, "cooldown": 2}, [4, 7]),
        ([3, 2, 2, 2, 1, 1, 1, 1], {"patience": 2, "cooldown": 2}, [4, 7]),
        ([2, 2, 2, 2], {"patience": 1}, [2, 3, 4]),
        ([2, 2, 2, 2], {"patience": 1, "cooldown": 1}, [2, 3, 4]),
        ([2, 2, 2, 2], {"patience": 0}, [2, 3, 4]),
        ([2, 1.99995, 1.9999, 1.9998], {"patience": 1}, [2, 3]),
        ([2, 1.99995, 1.9999, 1.9998], {"patience": 1, "min_delta": 0.0}, []),
        ([1, 2, 2, 2], {"patience": 2, "mode": "max"}, [4]),
        ([NAN, NAN, 1, NAN, NAN], {"patience": 2}, [2, 5]),
        ([2, 2, 2, 2], {"patience": 1, "min_lr": 1.0}, []),
        ([2, 2, 2, 2], {"patience": 1, "min_lr": 0.9}, [2, 3, 4]),
    ],
)
def test_plateau_counts(losses: list[float], settings: dict, want: list[int]) -> None:
    assert drops(losses, **settings) == want


def test_plateau_says_by_how_much_and_how_far() -> None:
    control = Control()
    callback = ReduceLROnPlateau(patience=1, factor=0.3, min_lr=0.01)
    for number in (1, 2):
        callback(epoch(number, val_loss=1.0, lr=0.1), control)
    assert control.drain() == (ScaleRate(0.3, 0.01),)


@pytest.mark.parametrize(
    "make",
    [
        functools.partial(EarlyStopping, patience=3, min_delta=0.1),
        functools.partial(ReduceLROnPlateau, patience=2, cooldown=2),
        functools.partial(ModelCheckpoint, keep="best", name="{epoch}"),
    ],
)
def test_memory_survives_json_at_any_epoch(make: Any) -> None:
    losses = [NAN, 3, 2, 2, 2, 1, 1, 1.2, 1, 1, 0.5, 0.7, 0.7, 0.7, 0.7]
    whole = play(make(), losses)
    for cut in range(len(losses)):
        first = make()
        head = play(first, losses[:cut])
        second = make()
        recall([second], json.loads(json.dumps(remember([first]))))
        assert head + play(second, losses[cut:], first=cut + 1) == whole


def test_memory_goes_by_class_so_that_callbacks_may_come_and_go() -> None:
    one, two = EarlyStopping(patience=5), EarlyStopping(patience=5)
    play(one, [3.0])
    play(two, [2.0])
    saved = remember([one, print, two])
    assert set(saved) == {"EarlyStopping", "EarlyStopping#2"}
    fresh = [ReduceLROnPlateau(), EarlyStopping(), EarlyStopping()]
    recall(fresh, saved)
    assert [callback.state()["best"] for callback in fresh] == [None, 3.0, 2.0]
    with pytest.raises(RunError, match="memory of EarlyStopping"):
        recall(fresh, {"EarlyStopping": {"other": 1}})


@pytest.mark.parametrize(
    "make", [EarlyStopping, ReduceLROnPlateau, functools.partial(ModelCheckpoint, name="{epoch}")]
)
def test_a_metric_that_does_not_exist_is_refused_with_a_near_one(make: Any) -> None:
    expected = r"watches 'val_los', which this run does not report\n  hint: did you mean 'val_loss'"
    event = epoch(1, loss=1.0, val_loss=2.0, lr=0.1, note="text")
    with pytest.raises(ConfigError, match=expected):
        make(monitor="val_los")(event, Control())
    start = Event(step=0, kind="start", values={"metrics": ["loss", "lr", "val_loss"]}, time=0.0)
    with pytest.raises(ConfigError, match=expected):
        make(monitor="val_los")(start, Control())
    make(monitor="val_los")(Event(step=0, kind="start", values={}, time=0.0), Control())
    with pytest.raises(ConfigError, match="watches 'note'") as caught:
        make(monitor="note")(event, Control())
    # None is near: all of them, and once.
    assert caught.value.hint == "known: loss, lr, val_loss"
    assert str(caught.value).count("val_loss") == 1
    alone = Event(step=0, kind="start", values={"metrics": ["loss", "lr"]}, time=0.0)
    with pytest.raises(ConfigError, match=r"there is no validation part.*one of loss, lr$"):
        make(monitor="val_loss")(alone, Control())


def test_a_mode_that_cannot_be_told_from_the_name_must_be_said() -> None:
    event = Event(step=1, kind="epoch", values={"epoch": 1, "val_charm": 0.5}, time=0.0)
    with pytest.raises(ConfigError, match="cannot tell whether 'val_charm' is better"):
        EarlyStopping(monitor="val_charm")(event, Control())
    EarlyStopping(monitor="val_charm", mode="max")(event, Control())
    with pytest.raises(ConfigError, match="auto, min or max"):
        EarlyStopping(mode="up")  # type: ignore[arg-type]


def saves(callback: ModelCheckpoint, *events: Event) -> list[Save]:
    control = Control()
    for event in events:
        callback(event, control)
    return [request for request in control.drain() if isinstance(request, Save)]


def test_copies_after_every_epoch_or_the_best() -> None:
    events = [epoch(n, val_loss=loss) for n, loss in enumerate([0.5, 0.71234, NAN, 0.25], 1)]
    assert [one.name for one in saves(ModelCheckpoint(keep="all"), *events)] == [
        *("01-0.50", "02-0.71", "03-nan", "04-0.25")
    ]
    best = saves(ModelCheckpoint(keep="best", weights_only=True), *events)
    assert best == [Save("01-0.50", True), Save("04-0.25", True)]
    assert saves(ModelCheckpoint(keep="none"), *events) == []
    upside = ModelCheckpoint(keep="best", mode="max", name="top-{step:06d}")
    assert [one.name for one in saves(upside, *events)] == ["top-000100", "top-000200"]


@pytest.mark.parametrize("spacing", [1, 3])
def test_numbered_checkpoints_every_so_many_steps(spacing: int) -> None:
    steps = [
        Event(step=n, kind="step", values={"loss": 1.0}, time=0.0) for n in range(1, 25, spacing)
    ]
    got = saves(ModelCheckpoint(keep="none", every_steps=10), *steps)
    assert got == [Save(None, False)] * 2
    start = Event(step=15, kind="start", values={}, time=0.0)
    later = [event for event in steps if event.step > 15]
    assert len(saves(ModelCheckpoint(keep="none", every_steps=10), start, *later)) == 1


@pytest.mark.parametrize(
    "template",
    [
        *("{epoch:02d", "{}", "{0}", "{epoch.real}", "{epoch[0]}", "{epoch!r}", "{val_loss:02d}"),
        *("{epoch:{step}}", "a/{epoch}", "step-{epoch:08d}", "", ".{epoch}", "{epoch:q}"),
    ],
)
def test_templates_that_cannot_work_are_refused_at_once(template: str) -> None:
    with pytest.raises(ConfigError):
        ModelCheckpoint(name=template)


def test_an_unknown_field_is_refused_before_anything_is_written() -> None:
    expected = (
        r"field 'val_acuracy', which this run does not report\n"
        r"  hint: did you mean 'val_accuracy'\?$"
    )
    callback = ModelCheckpoint(keep="best", monitor="loss", name="{val_acuracy:.2f}")
    with pytest.raises(ConfigError, match=expected):
        callback(epoch(1, loss=NAN, val_accuracy=0.5), Control())
    start = Event(step=0, kind="start", values={"metrics": ["loss", "val_accuracy"]}, time=0.0)
    with pytest.raises(ConfigError, match=expected):
        callback(start, Control())


def test_a_metric_of_one_column_is_not_offered_as_a_field() -> None:
    """After its colon a template would read a format."""
    metrics = ["loss", "val_loss", "val_mae:age", "val_r2"]
    start = Event(step=0, kind="start", values={"metrics": metrics}, time=0.0)
    with pytest.raises(ConfigError, match="field 'val_mae'") as caught:
        ModelCheckpoint(monitor="val_mae:age", name="{val_mae:.2f}")(start, Control())
    assert "age" not in caught.value.hint
    ModelCheckpoint(monitor="val_mae:age", name="{val_r2:.2f}")(start, Control())


@pytest.mark.parametrize(
    "call",
    [
        lambda: EarlyStopping(patience=-1),
        lambda: EarlyStopping(min_delta=-0.1),
        lambda: EarlyStopping(mode="up"),  # type: ignore[arg-type]
        lambda: ReduceLROnPlateau(factor=1.0),
        lambda: ReduceLROnPlateau(cooldown=-1),
        lambda: ModelCheckpoint(keep="some"),  # type: ignore[arg-type]
        lambda: ModelCheckpoint(every_steps=0),
        lambda: Control().scale_rate(0.0),
        lambda: Control().save("../elsewhere"),
        lambda: Control().scale_rate(NAN),
    ],
)
def test_settings_out_of_range_are_refused(call: Any) -> None:
    with pytest.raises(ConfigError):
        call()


class Half:
    def __call__(self, event: Event, control: Control) -> None: ...

    def state(self) -> dict[str, Any]:
        return {}


class Async:
    async def __call__(self, event: Event, control: Control) -> None: ...


async def waits(event: Event, control: Control) -> None: ...


def yields(event: Event, control: Control):
    yield


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (lambda: None, r"takes \(event, control\); <lambda>\(\) does not"),
        (lambda event: None, r"<lambda>\(event\) does not\n  hint: def callback"),
        (lambda a, b, c: None, r"<lambda>\(a, b, c\) does not"),
        (lambda *, event, control: None, "does not"),
        (lambda event, control, *, more: None, "does not"),
        (EarlyStopping, r"EarlyStopping is a class\n  hint: pass EarlyStopping\(\.\.\.\)"),
        (waits, "waits is async"),
        (functools.partial(waits), "is async"),
        (Async(), "Async is async"),
        (yields, "yields is a generator"),
        (Half(), r"only one of state\(\) and load"),
        ("early_stopping", "'early_stopping' cannot be"),
        (None, "None cannot be"),
        (max, "max"),
    ],
)
def test_what_cannot_be_called_with_event_and_control_is_refused(bad: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check(bad)


class Method:
    def look(self, event: Event, control: Control) -> None: ...


@pytest.mark.parametrize(
    "good",
    [
        lambda event, control: None,
        lambda a, b, c=1: None,
        lambda *both: None,
        lambda event, *rest, **more: None,
        functools.partial(lambda x, event, control: None, 1),
        Method().look,
        EarlyStopping(),
        print,
    ],
)
def test_whatever_takes_two_is_accepted_as_it_is(good: Any) -> None:
    assert check(good) is good


def test_the_recipe_decides_which_there_are(tmp_path: Path) -> None:
    assert from_recipe(Recipe(), tmp_path) == []
    settings = {
        "stop": {"patience": 3, "monitor": "val_accuracy", "baseline": 0.5, "restore_best": False},
        "plateau": {"patience": 2, "factor": 0.5, "cooldown": 1, "min_lr": 0.001},
        "checkpoint": {"keep": "all", "every_steps": 9, "weights_only": True, "name": "e{epoch}"},
        "tensorboard": True,
    }
    made = from_recipe(from_dict(Recipe, settings), tmp_path)
    kinds = [EarlyStopping, ReduceLROnPlateau, ModelCheckpoint, TensorBoard]
    assert [type(one) for one in made] == kinds
    assert all(check(one) is one for one in made)
    stop, plateau, copies, board = made
    assert (stop.patience, stop.baseline, stop.restore_best) == (3, 0.5, False)
    assert (plateau.patience, plateau.factor, plateau.cooldown, plateau.min_lr) == (2, 0.5, 1, 1e-3)
    assert (copies.keep, copies.every_steps, copies.name) == ("all", 9, "e{epoch}")
    assert copies.weights_only
    assert board.folder == tmp_path / "tensorboard"
    control = Control()
    for number, accuracy in enumerate([0.6, 0.7, 0.8, 0.8, 0.8, 0.8], 1):
        stop(epoch(number, val_accuracy=accuracy), control)
        assert len(control.drain()) == (number == 6)


def test_tensorboard_reads_back_what_was_written(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board, control = TensorBoard(tmp_path), Control()
    board(Event(step=0, kind="start", values={"epochs": 2}, time=0.0), control)
    board(Event(step=50, kind="step", values={"loss": 2.0, "lr": 0.1}, time=0.5), control)
    board(epoch(1, val_loss=1.5, val_accuracy=0.25, note="x", flag=True), control)
    board(epoch(2, val_loss=1.25, val_accuracy=0.5), control)
    board(Event(step=200, kind="end", values={}, time=3.0), control)
    assert control.drain() == ()
    read = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert set(read.Tags()["scalars"]) == {"step/loss", "step/lr", "val_loss", "val_accuracy"}
    assert [(one.step, one.value) for one in read.Scalars("val_loss")] == [(100, 1.5), (200, 1.25)]


def test_curves_that_cannot_be_written_end_no_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full for a while; the curves have a hole, and go on after it."""
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    tensorboard = pytest.importorskip("torch.utils.tensorboard")
    full, calls = set[str](), list[str]()

    def checked(name: str, honest: Any) -> Any:
        def call(*args: Any, **named: Any) -> Any:
            calls.append(name)
            if name in full:
                raise OSError(errno.ENOSPC, "No space left on device")
            return honest(*args, **named)

        return call

    writer = tensorboard.SummaryWriter
    for name in ("__init__", "add_scalar", "close"):
        monkeypatch.setattr(writer, name, checked(name, getattr(writer, name)))
    board, control = TensorBoard(tmp_path), Control()

    def step(number: int) -> None:
        board(Event(step=number, kind="step", values={"loss": 1.0}, time=0.0), control)

    board(epoch(1, val_loss=1.0), control)
    full |= {"add_scalar", "close"}
    step(110)
    assert isinstance(board.error, OSError)
    calls.clear()
    step(120)
    assert not calls  # until the next epoch
    full |= {"__init__"}
    board(epoch(2, val_loss=2.0), control)
    assert calls == ["__init__"]
    full.clear()
    step(210)
    board(epoch(3, val_loss=3.0), control)
    assert board.error is None
    step(310)
    board(Event(step=310, kind="end", values={}, time=3.0), control)
    read = accumulator.EventAccumulator(str(tmp_path)).Reload()
    assert (300, 3.0) in [(one.step, one.value) for one in read.Scalars("val_loss")]
    assert [one.step for one in read.Scalars("step/loss")] == [310]
    step(320)
    full |= {"close"}
    board(Event(step=320, kind="end", values={}, time=3.0), control)
    assert isinstance(board.error, OSError)


def test_without_tensorboard_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(callbacks.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r'pip install "neocog\[tensorboard\]"'):
        TensorBoard(tmp_path)
