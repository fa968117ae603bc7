"""The training loop, readable from top to bottom. Floor 2, room engine.

Imports this room, data, layers and floor 0. Everything random is a function of (seed, epoch, step,
sample id), so that the loop can begin at any step and do what it would have done. It never asks
which task it trains: see `task.py` for the seam.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import math
import time
from typing import TYPE_CHECKING, Any

import torch

from neocog import chance
from neocog.data.batches import train_batches
from neocog.data.resident import resident
from neocog.engine import optim, schedule
from neocog.engine.averaging import Average
from neocog.engine.budget import LOOKS, Budget
from neocog.engine.control import (
    Control,
    KeepBest,
    RestoreBest,
    Save,
    ScaleRate,
    Stop,
    check,
)
from neocog.engine.evaluate import evaluate, look_seconds, together
from neocog.engine.growth import Growth
from neocog.engine.heads import Heads
from neocog.engine.job import Learning, Outcome, length
from neocog.engine.ledger import Ledger, at_once
from neocog.engine.live import Live
from neocog.engine.saves import BEST, SHARE, Saves
from neocog.engine.step import non_finite, train_step
from neocog.engine.stopping import Signals, Stopped
from neocog.errors import NonFiniteLossError
from neocog.host import collected_once, memory_kept
from neocog.layers import Predictor
from neocog.records import Event
from neocog.rewriting import rewritten

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from torch import Tensor

    from neocog.engine.control import Callback, Request
    from neocog.engine.job import Job, Length
    from neocog.records import Batch, TrainState

__all__ = ["train"]

FULL = "all epochs done"
"""Why a training ends that nobody stops."""
RESIDENT = 0.25
"""Share of an accelerator's free memory that the data set may take; training needs the rest."""
TIME = "the time is up"
"""Why one ends that has a time instead of epochs."""


def train(
    job: Job,
    *,
    folder: Path,
    callbacks: Sequence[Callback] = (),
    listeners: Sequence[Callable[[Event], None]] = (),
    resume: TrainState | None = None,
    history: Sequence[Event] = (),
    world: Mapping[str, Any] | None = None,
    signals: Signals | None = None,
) -> Outcome:
    """Train the job's network in place, from its first step or from a checkpoint.

    Args:
        job: what to train, on what, how.
        folder: where checkpoints go.
        callbacks: called with each event and a `Control`; may stop, save or change the rate.
        listeners: called with each event before the callbacks: console, event file. One that has
            a `sync` must have kept its events when that returns: called before each checkpoint.
            One that has a `flush` shows them to other programs then: called before a validation.
        resume: the state to go on from.
        history: the events up to that state.
        world: what the run depends on beside its state; stands in each checkpoint.
        signals: a wish to stop is heeded between steps, after a checkpoint.

    A checkpoint that cannot be written is told of and tried again; the outcome says what is
    missing.

    Raises:
        Stopped: by a signal; the checkpoint is written.
        NonFiniteLossError: naming the step and the samples. The weights are as before that step;
            on an accelerator, where the host runs some steps ahead, only those of the checkpoints.
    """
    size = length(job.recipe, len(job.data.splits["train"]))
    if size.total is None and job.ends is None:
        raise ValueError("a job without epochs needs `ends`, the time at which it is over")
    job.arrange(job.network)
    decay = job.recipe.engine.ema
    live = Live(
        network=job.network,
        optimizers=optim.build(job.network, job.recipe.optim, rates=job.rates, own=job.carried),
        average=Average(job.network, decay) if decay else None,
        scaler=torch.amp.GradScaler(job.device.type, enabled=job.choice.precision == "fp16"),
        callbacks=[check(callback) for callback in callbacks],
    )
    engine = job.recipe.engine
    every = 60 * engine.save_minutes
    if engine.minutes is not None:
        every = min(every, SHARE * 60 * engine.minutes)
    saves = Saves(folder, every=every, world=world or {}, clock=time.monotonic)
    run = _Run(job, size, live, saves, listeners, history, signals or Signals())
    if resume is not None:
        live.load(resume)
        run.recall_epoch(history)
    with _surroundings(job), run.signals.patient():
        try:
            run.go()
        except Stopped:
            run.save()
            raise
    run.signals.check()  # one that came while the last checkpoint was written
    kept = (run.best() if live.restore else None) or live.weights
    return Outcome(
        weights={
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in kept.items()
        },
        epochs=math.ceil(live.step / size.steps),
        steps=live.step,
        seconds=run.seconds,
        images=run.images,
        reason=live.reason or run.full,
        unsaved="" if saves.written else saves.error,
    )


@contextlib.contextmanager
def _surroundings(job: Job) -> Iterator[None]:
    """Threads, random state, training flags and the network's ways come back as they were."""
    threads = torch.get_num_threads()
    flags = [(part, part.training) for part in job.network.modules()]
    devices = [job.device] if job.device.type == "cuda" else []
    torch.set_num_threads(job.choice.threads)
    try:
        with (
            torch.random.fork_rng(devices=devices),
            memory_kept(),
            collected_once(),
            rewritten(job.network),
        ):
            yield
    finally:
        torch.set_num_threads(threads)
        for part, flag in flags:
            part.training = flag


def _seed(device: torch.device, key: int) -> None:
    """Set what the step draws from; `torch.manual_seed` asks every backend, which takes as long as
    a small layer."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(key)
    else:
        torch.manual_seed(key)


class _Run:
    """The loop itself: epochs, steps, and what happens between them."""

    def __init__(
        self,
        job: Job,
        size: Length,
        live: Live,
        saves: Saves,
        listeners: Sequence[Callable[[Event], None]],
        history: Sequence[Event],
        signals: Signals,
    ) -> None:
        self.job, self.size, self.live = job, size, live
        self.saves, self.listeners, self.signals = saves, listeners, signals
        self.count = len(history)
        self.began = time.monotonic() - (history[-1].time if history else 0.0)
        self.seconds, self.images = 0.0, 0
        self.losses: list[float] = []
        self.ledger = Ledger()
        self.data = resident(job.data, job.device, share=RESIDENT)
        self.opened = time.monotonic()
        self.seen, self.before = 0, 0.0
        self.settled = self.opened
        self.peak = live.optimizers.lr
        self.full = FULL if job.ends is None else TIME
        self.budget = self._budget(history) if job.ends is not None else None
        self.normalize = job.normalizer()
        once = dataclasses.replace(job.input, views="one")
        self.predictor = Predictor(job.network, once, job.task.decode).to(job.device)
        self.parameters = [p for p in job.network.parameters() if p.requires_grad]
        self.growth = Growth(job.recipe.schedule, job.input.size)
        self.growing = len(self.growth.stages) > 1
        self.heads = Heads(job.network, compiled=job.choice.compile, growing=self.growing)
        self.learning = Learning(job)

    def _budget(self, history: Sequence[Event]) -> Budget:
        """The time of this run; what earlier processes trained for counts as gone."""
        splits, views = self.job.data.splits, LOOKS[self.job.input.views]
        held = {part: len(splits[part]) for part in ("val", "test") if part in splits}
        return Budget(
            self.job.ends or 0.0,
            minutes=self.job.recipe.engine.minutes or 0.0,
            during=held.get("val", 0),
            after=views * sum(held.values()),
            spent=history[-1].time if history else 0.0,
            clock=time.monotonic,
        )

    def recall_epoch(self, history: Sequence[Event]) -> None:
        """What an earlier process did since the last epoch was told, whose mean and rate are over
        all of its steps."""
        told = [i for i, event in enumerate(history) if event.kind in ("start", "epoch")]
        if not told:
            return
        since = history[told[-1] :]
        self.losses = [event.values["loss"] for event in since if event.kind == "step"]
        self.before = since[-1].time - since[0].time
        samples = len(self.job.data.splits["train"])
        self.seen = round(samples * len(self.losses) / self.size.steps)

    def emit(self, kind: str, **values: Any) -> None:
        """Tell everyone of something that happened at the present step."""
        self._tell(self.live.step, kind, values)

    def _tell(self, step: int, kind: str, values: Mapping[str, Any]) -> None:
        """Tell everyone, then do what the callbacks asked for."""
        event = Event(step=step, kind=kind, values=values, time=time.monotonic() - self.began)
        self.count += 1
        for listener in self.listeners:
            listener(event)
        control = Control()
        for callback in self.live.callbacks:
            callback(event, control)
        # A checkpoint last: the others' memory in it already counts what they asked for.
        for request in sorted(control.drain(), key=lambda one: isinstance(one, Save)):
            self._obey(request, event)

    def _obey(self, request: Request, event: Event) -> None:
        """Carry out what a callback asked for."""
        live = self.live
        match request:
            case Stop(reason):
                live.reason = reason
            case ScaleRate(factor, floor):
                live.scale, live.floor = live.scale * factor, floor
                self.emit("rate", scale=live.scale, lr=self._rate())
            case Save(None, _):
                # After the last step of an epoch the epoch's own checkpoint follows; one before
                # the validation would skip it on resuming.
                if event.kind == "step" and live.step % self.size.steps:
                    self.save()
            case Save(name, weights_only):
                self.save(name=name, weights_only=weights_only)
            case KeepBest():
                self.save(name=BEST, weights_only=True)
            case RestoreBest():
                live.restore = True

    def save(self, *, name: str | None = None, weights_only: bool = False) -> None:
        """Write a checkpoint; of those that resuming needs the last two stay."""
        began = time.monotonic()
        if name is not None and weights_only:
            done = self.saves.weights(self.live.weights, name=name)
        else:
            self._settle(wait=True)  # a checkpoint counts the events of all steps before it
            done = self._keep_events() and self.saves.state(
                self.live.state(), name=name, events=self.count
            )
            if self.budget:
                self.budget.saved(time.monotonic() - began)
        if not done:
            self.emit("save-failed", error=self.saves.error)

    def best(self) -> Mapping[str, Tensor] | None:
        """The weights of the best epoch; None, and a word about it, where they are lost."""
        best = self.saves.best()
        if best is None and self.saves.error:
            self.emit("save-failed", error=f"{self.saves.error}; the last weights are kept")
        return best

    def _keep_events(self) -> bool:
        """Have the events reach the disk before a checkpoint that counts on them."""
        for listener in self.listeners:
            sync = getattr(listener, "sync", None)
            if sync and not self.saves.attempt(sync):
                return False
        return True

    def _show_events(self) -> None:
        """Have others see the events before a validation, which may take long."""
        for listener in self.listeners:
            flush = getattr(listener, "flush", None)
            if flush:
                flush()

    def go(self) -> None:
        """From the present step to the last."""
        self._practise()
        if self.live.step == 0:
            # One batch of the validation part, before hours of training find out that it fails.
            metrics = ["loss", *self._validate(sample=True), "lr", "seconds", "images_per_second"]
            epochs = self.job.recipe.engine.epochs
            setup = self.budget.opening() if self.budget else {}
            steps = self.size.total
            self.emit("start", epochs=epochs, steps=steps, metrics=metrics, **setup)
        elif self.budget:
            self.emit("resume", used=self.budget.used)
        self.settled = time.monotonic()
        self.opened = self.settled - self.before
        if self.losses and self.live.step % self.size.steps == 0:
            self._conclude()  # what came before ended between an epoch and its validation
        while not self._over():
            self._pass(self.live.step // self.size.steps)
            # Where the time of the run is given, some passes end without a validation.
            if self.budget is None or self._over() or self.budget.pause():
                self._conclude()
        if self.losses:  # the time was up between two passes
            self._conclude()
        self.emit("end", reason=self.live.reason or self.full)

    def _practise(self) -> None:
        """How long a look at pictures takes here, for a run whose time is given."""
        held = (self.job.data.splits.get(part) for part in ("val", "test"))
        ids = next((ids for ids in held if ids is not None and len(ids)), None)
        if self.budget is None or ids is None:
            return
        one = look_seconds(self.predictor, self.job.task, self.data, ids, device=self.job.device)
        self.budget.looked(1, one)

    def _over(self) -> bool:
        """Whether the training ends here."""
        if self.live.reason:
            return True
        if self.budget:
            return self.budget.over(len(self.ledger))
        return self.size.total is not None and self.live.step >= self.size.total

    def _rate(self) -> float:
        """The learning rate of the next step."""
        live, recipe = self.live, self.job.recipe.schedule
        if self.size.total is not None:
            factor = schedule.factor(recipe, live.step, self.size.total, self.size.steps)
        else:
            factor = schedule.timed(recipe, self._share(), live.step // self.size.steps)
        return schedule.lowered(self.peak * factor, live.scale, live.floor)

    def _share(self) -> float:
        """The share of the steps that are done; of a run whose time is given, as the time says."""
        if self.size.total is not None:
            return self.live.step / self.size.total
        return self.growth.share(self.budget.share()) if self.budget else 0.0

    def _pass(self, epoch: int) -> None:
        """One pass over the training part, or what is left of it."""
        for batches in self._steps(epoch):
            self._step(batches)
            self.seen += sum(len(one.ids) for one in batches)
            self._settle(wait=False)
            self.signals.check()
            if self._over():
                break
            if self.saves.due() and self.live.step % self.size.steps:
                self.save()
        self._settle(wait=True)
        self._show_events()

    def _conclude(self) -> None:
        """Validate, tell of the epoch and save."""
        spent, seen = time.monotonic() - self.opened, self.seen
        self.seconds += spent
        self.images += seen
        self.emit(
            "epoch",
            epoch=math.ceil(self.live.step / self.size.steps),
            loss=math.fsum(self.losses) / max(1, len(self.losses)),
            **self._validate(),
            lr=self.live.optimizers.lr,
            seconds=spent,
            images_per_second=seen / spent,
        )
        self.losses = []
        self.save()
        self.opened, self.seen = time.monotonic(), 0
        self.settled = self.opened

    def _steps(self, epoch: int) -> Iterator[list[Batch]]:
        """The batches of each step that is left of this epoch."""
        job, group = self.job, self.job.recipe.engine.accumulate
        done = self.live.step % self.size.steps
        batches = train_batches(
            self.data,
            batch=self.size.batch,
            seed=job.recipe.seed,
            epoch=epoch,
            augment=job.augment,
            start=done * group,
            device=job.device,
        )
        for _ in range(done, self.size.steps):
            yield list(itertools.islice(batches, group))

    def _step(self, batches: list[Batch]) -> None:
        """One optimiser step: rate, random state, update, average; the loss goes to the ledger."""
        job, live = self.job, self.live
        live.optimizers.set_lr(self._rate())
        _seed(job.device, chance.key(job.recipe.seed, "step", live.step))
        self.learning.keep()
        share = self._share()
        try:
            stepped = train_step(
                self.heads,
                self.parameters,
                batches,
                job=job,
                normalize=self.normalize,
                optimizers=live.optimizers,
                scaler=live.scaler,
                check=at_once(job.device),
                size=self.growth.size(share) if self.growing else None,
            )
        except NonFiniteLossError as error:
            raise self._named(error, live.step + 1) from None
        live.step += 1
        if live.average:
            live.average.update(job.network, live.step)
        self.ledger.put(live.step, live.optimizers.lr, stepped)

    def _settle(self, *, wait: bool) -> None:
        """Tell of the steps whose loss is there."""
        for entry in self.ledger.settled(wait=wait):
            loss = entry.value.item()
            if not math.isfinite(loss):
                raise self._named(non_finite(loss, entry.stepped.samples), entry.step)
            self.losses.append(loss)
            if self.budget:
                now, before = time.monotonic(), self.settled
                self.budget.stepped(now - before, self.growth.size(self._share()))
                self.settled = now
            self._tell(entry.step, "step", {"loss": loss, "lr": entry.lr})

    def _named(self, error: NonFiniteLossError, step: int) -> NonFiniteLossError:
        """The error with the step and the names of its samples."""
        names = ", ".join(self.job.data.names[i] for i in error.ids[:8])
        more = f" and {len(error.ids) - 8} more" if len(error.ids) > 8 else ""
        epoch = (step - 1) // self.size.steps + 1
        return NonFiniteLossError(
            f"{error.message} at step {step} (epoch {epoch}); "
            f"samples {error.ids[:8]}: {names}{more}",
            "lower --lr, clip with --set optim.clip_norm=1, or look at these samples",
            ids=error.ids,
        )

    def _validate(self, *, sample: bool = False) -> dict[str, float]:
        """`val_loss`, `val_accuracy`, … of the weights that would be kept now.

        A sample is one batch, spread over the part: sorted data has one class at its beginning.
        """
        job, average = self.job, self.live.average
        ids = job.data.splits.get("val")
        if ids is None or not len(ids):
            return {}
        if sample:
            ids = ids[:: -(-len(ids) // together(self.data))]
        kept = average.applied(job.network) if average else contextlib.nullcontext()
        began = time.monotonic()
        with kept:
            result = evaluate(
                self.predictor,
                job.task,
                self.data,
                ids,
                device=job.device,
                between=self.signals.check,
            )
        if self.budget:
            self.budget.looked(len(ids), time.monotonic() - began)
        return {f"val_{name}": value for name, value in result.statistics.values().items()}
