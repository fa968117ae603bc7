"""The loop against a loop written by hand, and against itself cut in two."""

import dataclasses
import gc
import itertools
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from neocog import recipes, tasks
from neocog.config import Recipe
from neocog.data import dataset
from neocog.data.augment import Augment
from neocog.data.batches import order, train_batches
from neocog.data.dataset import Dataset
from neocog.engine import checkpoint, loop
from neocog.engine.budget import WRITE
from neocog.engine.control import Control
from neocog.engine.evaluate import evaluate, evaluating
from neocog.engine.job import Job, Learning, Outcome, length, plain
from neocog.errors import ConfigError, DataError, NonFiniteLossError
from neocog.layers import Normalize, Predictor
from neocog.models import catalog
from neocog.records import Event, TrainState
from neocog.settings import from_dict

QUIET = {"flip": 0, "shift": 0, "rotate": 0, "scale": 0}
ALL_ON = {
    "augment": {
        "flip": 0.5,
        "shift": 0.125,
        "rotate": 10,
        "scale": 0.1,
        "contrast": 0.2,
        "brightness": 0.1,
        "blur": 0.5,
        "noise": 0.05,
        "cutout": 0.3,
        "mixup": 0.4,
        "cutmix": 1.0,
    },
    "optim": {"name": "muon", "centralize": True, "clip_norm": 1.0},
    "model_args": {"width": 8, "depth": 1, "dropout": 0.2},
    "engine": {"ema": 0.9},
}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return dataset.load(from_dict(Recipe, {"data": {"source": "digits", "val": 0.2}}).data)


def make(data: Dataset, values: dict[str, Any], network: nn.Module | None = None) -> Job:
    defaults: dict[str, Any] = {
        "engine": {"epochs": 2, "batch": 64, "device": "cpu"},
        "augment": dict(QUIET),
        "model": "mlp",
    }
    for name, value in values.items():
        merges = isinstance(value, dict) and name in defaults
        defaults[name] = defaults[name] | value if merges else value
    recipe = recipes.resolve(from_dict(Recipe, defaults), data)
    spec = dataset.spec(data)
    task = tasks.for_data(data, recipe)
    if network is None:
        torch.manual_seed(0)
        network = catalog.build(
            recipe.model,
            channels=spec.channels,
            size=spec.size,
            outputs=task.outputs,
            args=recipe.model_args,
        )
    device = torch.device("cpu")
    return Job(
        network=network,
        task=task,
        data=data,
        input=spec,
        recipe=recipe,
        augment=Augment(
            recipe.augment,
            seed=recipe.seed,
            classes=len(data.classes),
            kind=data.kind,
            mean=spec.mean,
        ),
        device=device,
        choice=plain(recipe.engine, device),
    )


def run(
    job: Job, folder: Path, callbacks: Sequence[Callable[[Event, Control], None]] = ()
) -> tuple[Outcome, list[Event]]:
    events: list[Event] = []
    return loop.train(job, folder=folder, callbacks=callbacks, listeners=[events.append]), events


def test_the_loop_is_the_one_that_everybody_writes(digits: Dataset, tmp_path: Path) -> None:
    """Plain SGD without tricks: every loss and every weight equal those of ten plain lines."""
    values = {
        "optim": {"name": "sgd", "lr": 0.1},
        "schedule": {"name": "constant"},
        "model_args": {"width": 32},
        "engine": {"layout": "contiguous"},
    }
    job = make(digits, values)
    plain = make(digits, values).network
    _, events = run(job, tmp_path)

    optimizer = torch.optim.SGD(plain.parameters(), lr=0.1)
    train, losses = digits.splits["train"], []
    mean, std = job.input.mean[0] * 255, job.input.std[0] * 255
    for epoch in range(2):
        ids = order(train, seed=0, epoch=epoch)
        cuts = [i * len(ids) // 23 for i in range(24)]  # 1438 pictures, at most 64 at once
        for first, last in itertools.pairwise(cuts):
            batch = ids[first:last]
            x = (digits.images.gather(batch, digits.size).float() - mean) / std
            loss = F.cross_entropy(plain(x), digits.targets[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    ours = [event.values["loss"] for event in events if event.kind == "step"]
    assert ours == pytest.approx(losses, rel=1e-4)
    for name, weight in plain.state_dict().items():
        torch.testing.assert_close(job.network.state_dict()[name], weight, rtol=1e-3, atol=1e-5)


def test_events_tell_the_whole_story(digits: Dataset, tmp_path: Path) -> None:
    outcome, events = run(make(digits, {}), tmp_path)
    steps = math.ceil(len(digits.splits["train"]) / 64)
    assert [event.kind for event in events] == ["start", *(["step"] * steps + ["epoch"]) * 2, "end"]
    assert outcome.steps == 2 * steps
    assert outcome.epochs == 2
    assert outcome.images == 2 * len(digits.splits["train"])
    epoch = events[steps + 1]
    losses = [event.values["loss"] for event in events[1 : steps + 1]]
    assert epoch.values["loss"] == pytest.approx(sum(losses) / steps)
    assert epoch.values["val_accuracy"] > 0.5
    assert set(events[0].values["metrics"]) == set(epoch.values) - {"epoch"}
    assert [event.time for event in events] == sorted(event.time for event in events)
    json.dumps([dataclasses.asdict(event) for event in events], allow_nan=False)


def test_accumulating_is_the_same_step_as_one_large_batch(digits: Dataset, tmp_path: Path) -> None:
    weights = torch.rand(len(digits.weights), generator=torch.Generator().manual_seed(0)) + 0.5
    # A number of pictures that both batches divide: else the two cut an epoch at other places.
    train = digits.splits["train"][: 22 * 64]
    data = dataclasses.replace(digits, weights=weights, splits={"train": train})
    whole = make(data, {"engine": {"batch": 64, "epochs": 1}})
    parts = make(data, {"engine": {"batch": 16, "accumulate": 4, "epochs": 1}})
    run(whole, tmp_path / "whole")
    run(parts, tmp_path / "parts")
    for name, weight in whole.network.state_dict().items():
        torch.testing.assert_close(parts.network.state_dict()[name], weight, rtol=1e-3, atol=1e-4)


def test_the_last_step_of_an_epoch_may_hold_fewer_batches(digits: Dataset, tmp_path: Path) -> None:
    """1438 pictures at 3 × 200: eight batches, three steps, the last of two; none is left out."""
    job = make(digits, {"engine": {"batch": 200, "accumulate": 3}})
    outcome, events = run(job, tmp_path)
    assert outcome.steps == 6
    assert outcome.images == 2 * 1438
    assert [event.step for event in events if event.kind == "epoch"] == [3, 6]


@pytest.mark.parametrize(
    ("samples", "batch", "accumulate", "steps"),
    [(60, 32, 1, 2), (64, 32, 1, 2), (65, 32, 1, 3), (65, 32, 2, 2), (10, 64, 4, 1)],
)
def test_the_steps_of_an_epoch(
    digits: Dataset, samples: int, batch: int, accumulate: int, steps: int
) -> None:
    engine = {"batch": batch, "accumulate": accumulate, "epochs": 7}
    size = length(make(digits, {"engine": engine}).recipe, samples)
    assert (size.steps, size.total) == (steps, 7 * steps)


@pytest.mark.parametrize("stop_at", [1, 23, 24, 40])
def test_a_run_cut_in_two_ends_as_if_never_cut(
    digits: Dataset, tmp_path: Path, stop_at: int
) -> None:
    """Everything random on, killed after any step: same weights, same events, bit for bit."""
    values = ALL_ON | {"model": "cnn", "checkpoint": {"every_steps": 1}, "stop": {"patience": 9}}
    job = make(digits, values)
    from neocog.engine.callbacks import from_recipe

    whole, events = run(job, tmp_path / "a", from_recipe(job.recipe, tmp_path))

    class KilledError(Exception):
        pass

    def kill(event: Event) -> None:
        if event.kind == "step" and event.step == stop_at + 1:
            raise KilledError

    first: list[Event] = []
    cut = make(digits, values)
    with pytest.raises(KilledError):
        loop.train(
            cut,
            folder=tmp_path / "b",
            callbacks=from_recipe(cut.recipe, tmp_path),
            listeners=[first.append, kill],
        )
    found = checkpoint.load_latest(tmp_path / "b")
    assert found is not None
    assert found.state.step == stop_at
    history = first[: found.meta["events"]]
    again = make(digits, values)
    nn.init.zeros_(next(again.network.parameters()))  # nothing may come from fresh weights
    rest: list[Event] = []
    outcome = loop.train(
        again,
        folder=tmp_path / "b",
        callbacks=from_recipe(again.recipe, tmp_path),
        listeners=[rest.append],
        resume=found.state,
        history=history,
    )
    assert outcome.steps == whole.steps
    for name, weight in whole.weights.items():
        assert torch.equal(outcome.weights[name], weight), name

    def story(told: list[Event]) -> list[tuple[int, str, dict[str, Any]]]:
        clocks = {"seconds", "images_per_second"}
        return [
            (e.step, e.kind, {k: v for k, v in e.values.items() if k not in clocks}) for e in told
        ]

    assert story(history + rest) == story(events)


def test_a_loss_that_is_not_finite_stops_before_the_update(digits: Dataset, tmp_path: Path) -> None:
    culprit = int(order(digits.splits["train"], seed=0, epoch=0)[64 + 7])
    weights = digits.weights.clone()
    weights[culprit] = math.nan
    job = make(dataclasses.replace(digits, weights=weights), {})
    seen: dict[str, torch.Tensor] = {}

    def remember(event: Event, control: Control) -> None:
        if event.kind == "step":
            seen.update({k: v.clone() for k, v in job.network.state_dict().items()})

    with pytest.raises(NonFiniteLossError, match=r"at step 2 \(epoch 1\)") as caught:
        run(job, tmp_path, [remember])
    assert culprit in caught.value.ids
    assert "clip_norm" in caught.value.hint
    for name, weight in job.network.state_dict().items():
        assert torch.equal(weight, seen[name])


class Poison(nn.Module):
    """A network that answers NaN for one picture."""

    def __init__(self, inner: nn.Module, picture: torch.Tensor) -> None:
        super().__init__()
        self.inner, self.picture = inner, picture

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bad = (x == self.picture).flatten(1).all(1)
        return self.inner(x) + torch.where(bad, math.nan, 0.0)[:, None]


def test_the_sample_that_broke_the_loss_is_named_alone(digits: Dataset, tmp_path: Path) -> None:
    job = make(digits, {})
    culprit = order(digits.splits["train"], seed=0, epoch=0)[3:4]
    picture = Normalize(job.input.mean, job.input.std)(digits.images.gather(culprit, digits.size))
    data = dataclasses.replace(digits, splits={"train": digits.splits["train"]})
    job = make(data, {}, Poison(job.network, picture))
    with pytest.raises(NonFiniteLossError) as caught:
        run(job, tmp_path)
    assert caught.value.ids == (int(culprit),)
    assert digits.names[int(culprit)] in caught.value.message


def test_callbacks_stop_save_and_lower_the_rate(digits: Dataset, tmp_path: Path) -> None:
    def mine(event: Event, control: Control) -> None:
        if event.kind == "step" and event.step == 5:
            control.scale_rate(0.5, 0.0)
            control.save("five", weights_only=True)
        if event.kind == "step" and event.step == 9:
            control.stop("nine is enough")

    job = make(digits, {"schedule": {"name": "constant"}, "optim": {"name": "sgd", "lr": 0.1}})
    outcome, events = run(job, tmp_path, [mine])
    rates = {event.step: event.values["lr"] for event in events if event.kind == "step"}
    assert rates[5] == pytest.approx(0.1)
    assert rates[6] == pytest.approx(0.05)
    assert outcome.reason == "nine is enough"
    assert outcome.steps == 9
    assert (tmp_path / "five.safetensors").exists()
    assert events[-1].values == {"reason": "nine is enough"}


def test_early_stopping_ends_with_the_best_weights(digits: Dataset, tmp_path: Path) -> None:
    job = make(
        digits,
        {
            "engine": {"epochs": 12},
            "optim": {"name": "sgd", "lr": 60.0, "clip_norm": 1.0},
            "schedule": {"name": "constant"},
            "stop": {"patience": 2},
        },
    )
    from neocog.engine.callbacks import from_recipe

    outcome, events = run(job, tmp_path, from_recipe(job.recipe, tmp_path))
    losses = [event.values["val_loss"] for event in events if event.kind == "epoch"]
    job.network.load_state_dict(dict(outcome.weights))
    predictor = Predictor(job.network, job.input, job.task.decode)
    found = evaluate(predictor, job.task, digits, digits.splits["val"], device=torch.device("cpu"))
    assert found.statistics.scores().metrics["loss"].value == pytest.approx(min(losses), rel=1e-6)
    assert len(losses) < 12


@pytest.mark.parametrize("kind", ["class", "labels", "numbers"])
def test_callbacks_live_on_values_without_intervals(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """No epoch pays for a bootstrap, and whatever watches a metric still finds it."""
    targets = {
        "class": digits.targets,
        "labels": F.one_hot(digits.targets, 10).float(),
        "numbers": torch.stack([digits.targets, digits.targets % 2 * 100], dim=1).float(),
    }[kind]
    classes = ("size", "seconds") if kind == "numbers" else digits.classes
    data = dataclasses.replace(digits, kind=kind, targets=targets, classes=classes)
    score = {
        "class": "val_macro_f1",
        "labels": "val_mean_average_precision",
        "numbers": "val_r2:seconds",
    }[kind]
    shown = "val_r2" if kind == "numbers" else score
    job = make(
        data,
        {
            "engine": {"epochs": 9},
            "optim": {"name": "sgd", "lr": 1e-30},  # nothing will improve
            "schedule": {"name": "constant"},
            "stop": {"patience": 3, "monitor": score},
            "plateau": {"patience": 2, "monitor": score, "factor": 0.5},
            "checkpoint": {"keep": "best", "monitor": score, "name": f"best-{{{shown}:.3f}}"},
        },
    )
    from neocog.engine.callbacks import from_recipe

    made = type(job.task.statistics())
    monkeypatch.setattr(made, "scores", None)
    outcome, events = run(job, tmp_path, from_recipe(job.recipe, tmp_path))
    monkeypatch.undo()
    epochs = [event for event in events if event.kind == "epoch"]
    assert len(epochs) == 4
    assert score in outcome.reason
    assert [e.values["scale"] for e in events if e.kind == "rate"] == [0.5]
    first = epochs[0].values
    assert (tmp_path / f"best-{first[shown]:.3f}.safetensors").exists()
    predictor = Predictor(job.network, job.input, job.task.decode)
    found = evaluate(predictor, job.task, data, data.splits["val"], device=job.device)
    for name, one in found.statistics.scores().metrics.items():
        assert first[f"val_{name}"] == one.value, name


def test_a_callback_of_the_wrong_shape_is_refused_at_once(digits: Dataset, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="a callback takes"):
        run(make(digits, {}), tmp_path, [lambda event: None])  # type: ignore[list-item]


def test_the_callers_world_comes_back(digits: Dataset, tmp_path: Path) -> None:
    job = make(digits, {"engine": {"threads": 1, "epochs": 1}})
    job.network.eval()
    torch.manual_seed(123)
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    run(job, tmp_path)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads
    assert not any(part.training for part in job.network.modules())
    assert not gc.get_freeze_count()


class Stubborn(nn.Sequential):
    """Keeps its norm as it is, whatever it is told."""

    def train(self, mode: bool = True) -> "Stubborn":
        super().train(mode)
        self[1].eval()
        return self


def test_what_learns_is_in_training_mode_whoever_changed_it(digits: Dataset) -> None:
    network = Stubborn(
        nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Dropout(), nn.Sequential(nn.ReLU())
    )
    job = dataclasses.replace(make(digits, {}, network), still=("3",))
    network.eval()
    learning = Learning(job)
    assert not network.training  # until it is asked for
    wanted = {"": True, "0": True, "1": False, "2": True, "3": False, "3.0": False}
    for change in (nn.Module.eval, nn.Module.train, lambda each: each[2].eval()):
        learning.keep()
        assert {name: part.training for name, part in network.named_modules()} == wanted
        change(network)
    learning.keep()
    assert {name: part.training for name, part in network.named_modules()} == wanted


def test_evaluating_gives_each_module_its_own_flag_back() -> None:
    network = nn.Sequential(nn.Dropout(), nn.BatchNorm2d(3))
    network[1].eval()
    with evaluating(network):
        assert not network[0].training
    assert network.training
    assert network[0].training
    assert not network[1].training


def test_bfloat16_learns_too(digits: Dataset, tmp_path: Path) -> None:
    job = make(digits, {"engine": {"precision": "bf16", "epochs": 3}})
    _, events = run(job, tmp_path)
    assert [e for e in events if e.kind == "epoch"][-1].values["val_accuracy"] > 0.85


def test_scores_do_not_depend_on_padding(digits: Dataset) -> None:
    job = make(digits, {})
    predictor = Predictor(job.network, job.input, job.task.decode)
    ids = digits.splits["val"]
    found = [
        evaluate(predictor, job.task, digits, ids, device=torch.device("cpu"), batch=batch)
        for batch in (7, 64, 1000)
    ]
    for other in found[1:]:
        assert other.statistics.scores().confusion == found[0].statistics.scores().confusion
        torch.testing.assert_close(other.losses, found[0].losses)
    rows = found[0].statistics.scores().classes
    assert sum(row.n for row in rows) == len(ids)


def test_what_cannot_be_trained_is_said_before(digits: Dataset) -> None:
    with pytest.raises(ConfigError, match="fp16 training needs a CUDA device"):
        make(digits, {"engine": {"precision": "fp16"}})
    with pytest.raises(DataError, match="empty"):
        length(make(digits, {}).recipe, 0)
    assert length(make(digits, {"engine": {"batch": 4096}}).recipe, 10).batch == 10


def test_the_order_of_batches_is_that_of_the_data(digits: Dataset) -> None:
    batch = next(train_batches(digits, batch=32, seed=0, epoch=0, augment=None, device="cpu"))
    assert torch.equal(batch.targets, digits.targets[batch.ids])


class Turned:
    """A clock that a training step turns by so much, a look at a picture by so much, and everything
    else not at all."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 500.0
        monkeypatch.setattr("neocog.engine.loop.time.monotonic", lambda: self.now)

    def turn(self, job: Job, step: float, look: float, slower: float = 1.0) -> None:
        """From now on; `slower` times as long after half a minute."""

        def took(module: nn.Module, inputs: tuple[torch.Tensor], _: object) -> None:
            seconds = step if module.training else look * len(inputs[0])
            self.now += seconds * (slower if self.now > 530 else 1.0)

        job.network.register_forward_hook(took)


TIMED: dict[str, Any] = {
    "engine": {"minutes": 1.0, "epochs": None, "layout": "contiguous"},
    "schedule": {"name": "linear"},
}
STEP, LOOK = 0.5, 0.002


@pytest.mark.parametrize("slower", [1.0, 3.0])
@pytest.mark.parametrize("held", ["val", "test", "none"])
def test_a_timed_training_ends_in_time_with_its_rate_at_the_end(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, slower: float, held: str
) -> None:
    """Also on a machine that becomes three times as slow half-way, and with whatever is held back
    to be looked at afterwards."""
    clock = Turned(monkeypatch)
    splits = {"train": digits.splits["train"]}
    if held != "none":
        splits[held] = digits.splits["val"]
    data = dataclasses.replace(digits, splits=splits)
    job = dataclasses.replace(make(data, TIMED), ends=clock.now + 60)
    clock.turn(job, STEP, LOOK, slower)
    outcome, events = run(job, tmp_path)
    assert outcome.reason == "the time is up"
    after = slower * LOOK * len(splits.get(held, ()))
    left = 560 - clock.now - after
    # What is left for writing, and the margin.
    assert slower * (WRITE - STEP) <= left <= slower * (WRITE + STEP) + 0.6
    rates = [event.values["lr"] for event in events if event.kind == "step"]
    assert rates[0] == pytest.approx(job.recipe.optim.lr or 0.002, rel=0.05)
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.06 * rates[0]
    epochs = [event for event in events if event.kind == "epoch"]
    assert [event.values["epoch"] for event in epochs] == sorted(
        {event.values["epoch"] for event in epochs}
    )
    assert epochs[-1].step == outcome.steps == len(rates) == events[-1].step
    assert events[0].values["epochs"] is None


def test_a_timed_training_does_not_spend_its_time_on_news(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass of a twentieth of a second: not each of a thousand is validated, saved and told."""
    clock = Turned(monkeypatch)
    few = dataclasses.replace(digits, splits={**digits.splits, "train": digits.splits["train"][:3]})
    job = dataclasses.replace(make(few, TIMED), ends=clock.now + 60)
    clock.turn(job, 0.05, LOOK / 10)
    outcome, events = run(job, tmp_path)
    epochs = [event for event in events if event.kind == "epoch"]
    assert outcome.steps > 900
    assert 40 <= len(epochs) <= 100
    losses = [event.values["loss"] for event in events if event.kind == "step"]
    first = epochs[1].step - epochs[0].step
    assert epochs[1].values["loss"] == pytest.approx(
        math.fsum(losses[epochs[0].step : epochs[1].step]) / first
    )


def test_a_timed_training_goes_on_with_what_is_left(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut in the middle of a pass: it goes on from the checkpoint of a tenth of the time ago, and
    what the second process took to begin counts too."""
    clock = Turned(monkeypatch)
    job = dataclasses.replace(make(digits, TIMED), ends=clock.now + 60)
    clock.turn(job, STEP, LOOK)

    def stop(event: Event, _: Control) -> None:
        if clock.now > 525:
            raise KeyboardInterrupt

    told: list[Event] = []
    with pytest.raises(KeyboardInterrupt):
        loop.train(job, folder=tmp_path, callbacks=[stop], listeners=[told.append])
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    kept = told[: found.meta["events"]]
    assert found.state.step % 23  # no pass ended there
    assert 0 < len(told) - len(kept) < 20
    used = told[0].values["used"] + told[-1].time
    clock.now += 4  # until the second process trains
    again = dataclasses.replace(make(digits, TIMED), ends=clock.now + 56 - used)
    clock.turn(again, STEP, LOOK)
    more: list[Event] = []
    loop.train(again, folder=tmp_path, listeners=[more.append], resume=found.state, history=kept)
    assert more[0].kind == "resume"
    looks = 3 * 256 * LOOK  # to practise
    assert more[0].values["used"] == pytest.approx(used + 4 + looks, abs=0.01)
    rates = [event.values["lr"] for event in (*kept, *more) if event.kind == "step"]
    assert rates[-1] < 0.06 * rates[0]
    left = (again.ends or 0) - clock.now - LOOK * len(digits.splits["val"])
    assert WRITE - STEP <= left <= WRITE + STEP + 0.7


def test_long_epochs_are_saved_on_the_way(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One second a step, a checkpoint every 5: what a kill loses is no epoch, but 5 seconds; and
    how often a run saves changes nothing of what it tells."""
    clock = Turned(monkeypatch)
    values = {"engine": {"epochs": 1, "batch": 64, "save_minutes": 5 / 60}}
    job = make(digits, values)
    clock.turn(job, 1.0, 0.0)
    kept: list[int] = []
    save = checkpoint.save

    def noted(folder: Path, state: TrainState, **rest: Any) -> Path:
        kept.append(state.step)
        return save(folder, state, **rest)

    monkeypatch.setattr(checkpoint, "save", noted)
    _, events = run(job, tmp_path / "a")
    steps = length(job.recipe, len(digits.splits["train"])).steps
    assert kept == [*range(5, steps, 5), steps]
    values["engine"] |= {"save_minutes": 0.0}
    kept.clear()
    often = make(digits, values)
    clock.turn(often, 1.0, 0.0)
    _, plain = run(often, tmp_path / "b")
    assert kept == [steps]
    assert [e.values.get("loss") for e in events] == [e.values.get("loss") for e in plain]


def test_a_time_that_is_over_before_it_begins_is_refused(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = Turned(monkeypatch)
    job = dataclasses.replace(make(digits, TIMED), ends=clock.now + 1)
    with pytest.raises(ConfigError, match="nothing is left for training") as caught:
        run(job, tmp_path)
    assert "--minutes" in caught.value.hint
    with pytest.raises(ValueError, match="without epochs"):
        run(make(digits, TIMED), tmp_path)


class Late:
    """An arrival that is late: it takes so many looks until it is there."""

    def __init__(self, looks: int) -> None:
        self.looks = looks

    def query(self) -> bool:
        self.looks -= 1
        return self.looks < 0

    def synchronize(self) -> None:
        self.looks = 0


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A device whose numbers arrive some steps later, as an accelerator's do."""
    waits = itertools.cycle((0, 3, 1, 40))
    monkeypatch.setattr("neocog.engine.loop.at_once", lambda _: False)
    monkeypatch.setattr(
        "neocog.engine.ledger._send", lambda loss: (loss.clone(), Late(next(waits)))
    )


def told(events: Sequence[Event]) -> list[tuple[int, str, dict[str, Any]]]:
    """Events without what depends on the time of day."""
    return [
        (
            event.step,
            event.kind,
            {k: v for k, v in event.values.items() if "second" not in k},
        )
        for event in events
    ]


def test_losses_that_arrive_late_tell_the_same_story(
    digits: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    values = {**ALL_ON, "model": "cnn", "checkpoint": {"every_steps": 7}}
    saves: list[int] = []

    def save(event: Event, control: Control) -> None:
        if event.kind == "step" and event.step % 7 == 0:
            saves.append(event.step)
            control.save()

    want, plain_events = run(make(digits, values), tmp_path / "plain", [save])
    request.getfixturevalue("late")
    got, late_events = run(make(digits, values), tmp_path / "late", [save])
    assert told(late_events) == told(plain_events)
    assert saves[: len(saves) // 2] == saves[len(saves) // 2 :]
    for name, weight in want.weights.items():
        assert torch.equal(weight, got.weights[name]), name


@pytest.mark.usefixtures("late")
def test_a_checkpoint_knows_the_events_of_all_steps_before_it(
    digits: Dataset, tmp_path: Path
) -> None:
    """A save that is asked for at step 5 happens later, and counts what has been told by then."""

    def save(event: Event, control: Control) -> None:
        if event.kind == "step" and event.step == 5:
            control.save()
            control.stop("enough")

    _, events = run(make(digits, {"model": "mlp"}), tmp_path, [save])
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    steps = [event.step for event in events[: found.meta["events"]] if event.kind == "step"]
    assert steps == list(range(1, found.state.step + 1))


@pytest.mark.usefixtures("late")
def test_a_loss_that_arrives_late_and_is_no_number_names_its_step(
    digits: Dataset, tmp_path: Path
) -> None:
    job = make(digits, {"model": "mlp"})
    broken = int(order(digits.splits["train"], seed=0, epoch=0)[70])
    digits_weights = digits.weights.clone()
    digits_weights[broken] = math.inf
    job = dataclasses.replace(job, data=dataclasses.replace(digits, weights=digits_weights))
    with pytest.raises(NonFiniteLossError, match=r"at step 2 \(epoch 1\)"):
        run(job, tmp_path)
    assert checkpoint.load_latest(tmp_path) is None


on_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


def moved(job: Job, precision: Any = "fp32") -> Job:
    """The job on the first CUDA device."""
    device = torch.device("cuda", 0)
    choice = dataclasses.replace(job.choice, precision=precision, layout="channels_last")
    return dataclasses.replace(job, network=job.network.to(device), device=device, choice=choice)


@on_cuda
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_no_epoch_on_cuda_waits_for_the_device(
    digits: Dataset, tmp_path: Path, precision: str
) -> None:
    """PyTorch itself raises where the host would wait, from the first step to the last."""
    job = moved(make(digits, {"model": "cnn", "engine": {"ema": 0.9}}), precision)
    steps = length(job.recipe, len(digits.splits["train"])).steps

    def watch(event: Event, _: Control) -> None:
        last = event.kind == "step" and event.step % steps == 0
        torch.cuda.set_sync_debug_mode("default" if last else "error")

    try:
        _, events = run(job, tmp_path, [watch])
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [event.step for event in events if event.kind == "step"] == list(range(1, 2 * steps + 1))


@on_cuda
def test_cuda_learns_what_the_processor_learns(digits: Dataset, tmp_path: Path) -> None:
    values = {"model": "cnn", "model_args": {"dropout": 0.0}, "augment": {"shift": 0.125}}
    _, want = run(make(digits, values), tmp_path / "cpu")
    _, got = run(moved(make(digits, values)), tmp_path / "cuda")
    pairs = [
        (one.values["loss"], other.values["loss"])
        for one, other in zip(want, got, strict=True)
        if one.kind == "step"
    ]
    assert [b for _, b in pairs[:5]] == pytest.approx([a for a, _ in pairs[:5]], rel=1e-2)
    assert pairs[-1][1] < 0.5 * pairs[0][1]


@on_cuda
def test_a_loss_on_cuda_that_is_no_number_names_its_step(digits: Dataset, tmp_path: Path) -> None:
    broken = int(order(digits.splits["train"], seed=0, epoch=0)[70])
    weights = digits.weights.clone()
    weights[broken] = math.inf
    job = make(digits, {"model": "mlp"})
    job = moved(dataclasses.replace(job, data=dataclasses.replace(digits, weights=weights)))
    with pytest.raises(NonFiniteLossError, match=r"at step 2 \(epoch 1\)"):
        run(job, tmp_path)
