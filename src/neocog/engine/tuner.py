"""Find the fastest arithmetic for one network on one machine, by measuring. Floor 2, room engine.

Imports data, floor 0 and its own room. No rule of thumb holds: channels-last and bf16 make
one network five times faster and another slower, more threads slow small networks down, and
compiling helps some and costs others half. So real training steps on real batches are timed, the
candidates in turn so that a machine that drifts slows all alike, and the fastest is taken. One that
computes something else than fp32 is never a candidate.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import itertools
import json
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from neocog.data.batches import train_batches
from neocog.data.cache import cache_dir
from neocog.engine.candidate import Candidate, agreement, draws, gradients, within
from neocog.engine.job import Choice, Layout, Precision, length
from neocog.errors import NeocogError, RunError
from neocog.files import write_json
from neocog.host import BUSY, Watch, believed, cores, memory_kept
from neocog.machine import multiplies_bf16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from torch import Tensor

    from neocog.engine.job import Job
    from neocog.records import Batch

__all__ = ["Trial", "Tuned", "seconds_per_picture", "tune"]

MOST = 8.0
"""Seconds of measuring, at most, without compiling, unless the run is long."""
LONG = 0.01
"""Share of a long run that measuring may take."""
LEAST_BATCH = 32
"""Pictures in a measured step, at least. Where whole steps take too long, smaller ones are timed:
what a layer gains by another layout or precision hardly depends on the batch."""
LEAST_WHOLE = 4
"""The same where each pixel is answered for: a picture holds as many samples as pixels."""
SHARE = 0.05
"""Share of the plain loop's time that measuring may take; twice as much where it would not do for
more than two candidates."""
GAIN = 1.03
"""A candidate must be this much faster than the plain loop: less is noise."""
COMPILE_AFTER = 900.0
"""Seconds that a run must still take before compiling, which costs half a minute, is tried."""
ROUNDS = 12
"""Steps of each candidate, at most, but for short steps of those that are close."""
CLOSE, LOOK = 1.15, 0.7
"""Candidates that are within that factor of the leader are measured further, until it has been for
so many seconds in all: short steps waver, and a dozen are over in a moment."""
WINDOW = 0.5
"""Seconds of a look at what other programs do: the system counts in hundredths of a second."""
ENOUGH = 3
"""Timed steps after which a candidate may be given up, and which all need for the result to be
remembered: one step alone may have been the one that another program held up."""

MEANING = 4
"""Of what stands in a choice; results from before it changed are not believed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One candidate, as measured."""

    choice: Choice
    """How it computes."""
    seconds: float
    """Shortest time of one training step; interruptions only ever add."""
    steps: int
    """Steps that were timed."""
    error: tuple[float, float]
    """Relative difference of loss and of gradient against fp32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuned:
    """What was found."""

    choice: Choice
    """The one to use."""
    trials: tuple[Trial, ...] = ()
    """All candidates, the plain loop first; empty when nothing was measured."""
    seconds: float = 0.0
    """What measuring took."""
    busy: float = 0.0
    """Processors that others kept busy when it was decided, compiling apart."""
    remembered: bool = False
    """Whether an earlier measurement was used."""

    @property
    def gain(self) -> float:
        """How many times as fast as the plain loop; 1 when nothing was measured."""
        times = {trial.choice: trial.seconds for trial in self.trials}
        return self.trials[0].seconds / times[self.choice] if self.choice in times else 1.0


def tune(job: Job, *, cache: Path | None = None) -> Tuned:
    """The fastest choice for this job among those that its recipe leaves open.

    Nothing of the job is changed: candidates train copies.

    Args:
        job: its choice is what counts where measuring would not pay.
        cache: folder that remembers results per (network, batch, machine); for some minutes only
            where other programs were busy.
    """
    open_choices = _candidates(job)
    if len(open_choices) == 1:
        return Tuned(choice=open_choices[0])
    cache = cache or cache_dir() / "tuned"
    file = cache / f"{_key(job)}.json"
    known = _recall(file)
    if (
        known is not None
        and known.trials[0].choice == open_choices[0]
        # Compiling was worth it for a run that was long; it is tried again for another.
        and known.choice.compile == open_choices[0].compile
    ):
        return known
    began = time.monotonic()
    threads = torch.get_num_threads()
    try:
        with _aside(job):
            trials, busy = _measure(job, open_choices)
    finally:
        torch.set_num_threads(threads)
    if not trials:
        return Tuned(choice=job.choice)
    best = min(trials, key=lambda trial: trial.seconds)
    if best.seconds * GAIN > trials[0].seconds:
        best = trials[0]
    spent = round(time.monotonic() - began, 2)
    found = Tuned(choice=best.choice, trials=tuple(trials), seconds=spent, busy=busy)
    if all(trial.steps >= ENOUGH for trial in trials):
        with contextlib.suppress(RunError):  # a full disk costs the time again, nothing else
            write_json(file, {**dataclasses.asdict(found), "at": time.time()})
    return found


def seconds_per_picture(job: Job, *, pictures: int = 128) -> tuple[float, float]:
    """What a training step costs for each picture, measured in a few steps: a first estimate.

    The job's own choice and the one that is mostly the fastest, half precision in channels-last,
    take two steps each after one that warms up. Nothing is compiled for it.

    Args:
        job: nothing of it is changed.
        pictures: in a step, at most.

    Returns:
        Seconds of the faster one, and of the job's own.

    Raises:
        RuntimeError: not even its own runs here.
    """
    job = dataclasses.replace(job, choice=dataclasses.replace(job.choice, compile=False))
    batch = _first(_batches(job)[0], pictures)
    threads = torch.get_num_threads()
    times: list[float] = []
    try:
        with _aside(job):
            others = [one for one in _candidates(job)[1:] if one != job.choice]
            for choice in (job.choice, *others[:1]):
                candidate = Candidate(job, choice)
                try:
                    candidate.warm([batch])
                    candidate.step([batch])
                except RuntimeError:
                    if not times:
                        raise
                else:
                    times.append(candidate.best)
    finally:
        torch.set_num_threads(threads)
    return min(times) / len(batch.ids), times[0] / len(batch.ids)


@contextlib.contextmanager
def _aside(job: Job) -> Iterator[None]:
    """The surroundings of a training, without its traces."""
    devices = [job.device] if job.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), memory_kept():
        yield


def _candidates(job: Job) -> list[Choice]:
    """What the recipe leaves open: the plain loop in fp32, contiguous, then the most promising
    first."""
    engine, cuda = job.recipe.engine, job.device.type == "cuda"
    precisions: list[Precision] = [job.choice.precision]
    if engine.precision == "auto":
        precisions = ["fp32"]
        if multiplies_bf16(job.device):
            precisions.append("bf16")
        elif cuda:
            precisions.append("fp16")
    layouts: list[Layout] = [job.choice.layout]
    if job.input.contiguous:
        layouts = ["contiguous"]
    elif engine.layout == "auto" and len(job.input.size) == 2:
        layouts = ["contiguous", "channels_last"]
    plain, *others = [
        dataclasses.replace(job.choice, precision=precision, layout=layout)
        for precision, layout in itertools.product(precisions, layouts)
    ]
    return [plain, *reversed(others)]


def _measure(job: Job, choices: list[Choice]) -> tuple[list[Trial], float]:
    """Time the candidates in turn; none where the run is too short to be worth it.

    Returns:
        The trials, and the processors that others kept busy in the end.
    """
    watch = Watch()
    whole = _batches(job)
    plain = Candidate(job, choices[0])
    # Before any step: in evaluation mode the running statistics count, which steps move.
    least = LEAST_WHOLE if job.data.whole else LEAST_BATCH
    few = [_first(whole[0], least)]
    training = not draws(Candidate(job, choices[0]), few[0])
    reference = gradients(plain, few[0], training)
    plain.warm(few)
    pictures = sum(len(one.ids) for one in whole)
    each = plain.best * pictures / len(few[0].ids)  # an estimate: small steps are dearer
    total = length(job.recipe, len(job.data.splits["train"])).total
    if job.ends is not None:
        total = int((job.ends - time.monotonic()) / each)
    assert total is not None  # a run without an end has epochs
    budget = min(max(MOST, LONG * each * total), SHARE * each * total)
    # Every candidate takes a step to warm up, some to tell it from noise, and more if it leads.
    share = pictures / (6 * each)
    affordable = int(share * budget / len(choices))
    if affordable < least:
        # A net whose steps are long has most to gain: at least the most promising one is tried.
        choices, budget = choices[:2], 2 * budget
        affordable = int(share * budget / len(choices))
    if affordable < least:
        return [], 0.0
    batches = whole if affordable >= pictures else [_first(whole[0], affordable)]
    ends = time.monotonic() + budget
    latest = ends + budget  # where other programs get in the way, and nothing is clear yet
    plain.warm(batches)
    crew = [plain]
    for choice in choices[1:]:
        candidate = Candidate(job, choice)
        with contextlib.suppress(RuntimeError, NeocogError):  # what does not run is no candidate
            candidate.error = agreement(reference, gradients(candidate, few[0], training))
            if within(candidate.error, choice.precision):
                candidate.warm(batches)
                crew.append(candidate)
        if time.monotonic() > latest:
            break
    _race(crew, batches, ends, latest)
    leader = min(crew, key=lambda one: one.best)
    fewer, busy = _fewer_threads(job, leader, batches, ends, latest, watch.others)
    crew += fewer
    leader = min(crew, key=lambda one: one.best)
    rest = leader.best * total * pictures / sum(len(one.ids) for one in batches)
    if job.recipe.engine.compile == "auto" and rest > COMPILE_AFTER:
        crew += _compiled(job, leader, batches, reference, few[0], training)
    return [_trial(one) for one in crew], busy


def _trial(candidate: Candidate) -> Trial:
    """What was measured of it."""
    return Trial(
        choice=candidate.choice,
        seconds=candidate.best,
        steps=len(candidate.times),
        error=candidate.error,
    )


def _race(crew: Sequence[Candidate], batches: Sequence[Batch], ends: float, latest: float) -> None:
    """Steps in turn until time is up or it is clear; who is far behind is not measured further.

    Args:
        crew: those in the race, each timed at least once.
        batches: of one step.
        ends: when it is over for those with `ENOUGH` steps.
        latest: when it is over for all.
    """
    for number in itertools.count():
        leader = min(crew, key=lambda one: one.best)
        lead, behind = leader.best, 1.5 if number < ROUNDS else CLOSE
        if number >= ROUNDS and sum(leader.times) >= LOOK:
            return
        racing = []
        for one in crew:
            enough, now = len(one.times) >= ENOUGH, time.monotonic()
            if now > latest or (enough and (now > ends or one.best > behind * lead)):
                continue
            one.step(batches)
            racing.append(one)
        if not racing or (number >= ROUNDS and racing == [leader]):
            return


def _fewer_threads(
    job: Job,
    leader: Candidate,
    batches: Sequence[Batch],
    ends: float,
    latest: float,
    busy: Callable[[], float | None],
) -> tuple[list[Candidate], float]:
    """The leader on fewer threads: small networks lose more to waiting than they gain.

    Beside other programs they lose more still, which may be over in a moment, while the run that
    this is for lasts. So the race goes on for a while until nobody disturbs it.

    Args:
        job: what is tuned.
        leader: the fastest on all threads.
        batches: of one step.
        ends: when the race is over, but for the first steps.
        latest: when it is over for all.
        busy: how many processors others kept busy while all this was measured.

    Returns:
        The candidates, and how many processors others kept busy in the end; 0 where another
        device does the work.
    """
    most = leader.choice.threads
    if job.device.type != "cpu":
        return [], 0.0
    if job.recipe.engine.threads or most == 1:
        return [], busy() or 0.0
    found: list[Candidate] = []
    for threads in sorted({1, max(1, most // 2)}):
        if time.monotonic() > ends and found:
            break
        candidate = Candidate(job, dataclasses.replace(leader.choice, threads=threads))
        candidate.warm(batches)
        found.append(candidate)
    crew = [leader, *found]
    _race(crew, batches, ends, latest)
    others, until = busy() or 0.0, min(ends, time.monotonic() + MOST)
    while others >= BUSY and time.monotonic() + WINDOW < until:
        others = _watched(crew, batches)
    return found, others


def _watched(crew: Sequence[Candidate], batches: Sequence[Batch]) -> float:
    """Steps in turn for `WINDOW`, and how many processors others kept busy meanwhile. One that is
    behind may be so because of them, and goes on unless it is very far behind."""
    watch, over = Watch(), time.monotonic() + WINDOW
    while time.monotonic() < over:
        lead = min(one.best for one in crew)
        for one in crew:
            if one.best < 4 * lead:
                one.step(batches)
    return watch.others() or 0.0


def _compiled(
    job: Job,
    leader: Candidate,
    batches: Sequence[Batch],
    reference: tuple[float, Tensor],
    few: Batch,
    training: bool,
) -> list[Candidate]:
    """The leader compiled, if this machine can compile and it is the same function."""
    candidate = Candidate(job, dataclasses.replace(leader.choice, compile=True))
    try:
        candidate.error = agreement(reference, gradients(candidate, few, training))
        if not within(candidate.error, candidate.choice.precision):
            return []
        for _ in range(3):
            candidate.step(batches)
    except Exception:  # noqa: BLE001 - a compiler has a thousand ways to fail, and none matters
        return []
    candidate.times.clear()
    _race_pair(leader, candidate, batches)
    return [candidate]


def _race_pair(first: Candidate, second: Candidate, batches: Sequence[Batch]) -> None:
    """A few steps of both in turn."""
    for _ in range(5):
        second.step(batches)
        first.step(batches)


def _batches(job: Job) -> list[Batch]:
    """The batches of one step, augmented as they will be."""
    engine = job.recipe.engine
    stream: Iterator[Batch] = train_batches(
        job.data,
        batch=length(job.recipe, len(job.data.splits["train"])).batch,
        seed=job.recipe.seed,
        epoch=0,
        augment=job.augment,
        device=job.device,
    )
    return list(itertools.islice(stream, engine.accumulate))


def _first(batch: Batch, count: int) -> Batch:
    """The first rows of a batch."""
    images = batch.images[:count]
    return dataclasses.replace(
        batch,
        images=images.contiguous(memory_format=torch.channels_last)
        if images.dim() == 4
        else images,
        targets=batch.targets[:count],
        weights=batch.weights[:count],
        valid=batch.valid[:count],
        ids=batch.ids[:count],
    )


def _key(job: Job) -> str:
    """What a measurement is good for: network, batch, machine, and what is on in a step."""
    shapes = [(name, tuple(value.shape)) for name, value in job.network.state_dict().items()]
    machine = torch.cuda.get_device_name(job.device) if job.device.type == "cuda" else ""
    size = length(job.recipe, len(job.data.splits["train"]))
    engine = job.recipe.engine
    learnt = [name for name, one in job.network.named_parameters() if one.requires_grad]
    facts = [
        MEANING,
        *(
            str(job.network),
            shapes,
            learnt,
            list(job.still),
            job.input.contiguous,
            size.batch,
            job.data.size,
            job.recipe.optim.name,
        ),
        *(engine.accumulate, engine.precision, engine.layout, engine.compile, engine.threads),
        *(str(job.device), machine, cores(), torch.backends.cpu.get_cpu_capability()),
        torch.__version__,
    ]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:32]


def _recall(file: Path) -> Tuned | None:
    """An earlier measurement, where it is there and whole."""
    make: Callable[[dict[str, Any]], Trial] = lambda one: Trial(  # noqa: E731
        **{**one, "choice": Choice(**one["choice"]), "error": tuple(one["error"])}
    )
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not believed(float(found["busy"]), float(found["at"])):
            return None
        return Tuned(
            choice=Choice(**found["choice"]),
            trials=tuple(make(one) for one in found["trials"]),
            seconds=found["seconds"],
            busy=float(found["busy"]),
            remembered=True,
        )
    except (OSError, ValueError, KeyError, TypeError):
        return None
