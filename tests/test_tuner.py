"""The tuner: what it may choose, what it must not, and that it leaves everything as it was."""

import dataclasses
import math
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neocog import host
from neocog.config import Recipe
from neocog.data import dataset
from neocog.data.dataset import Dataset
from neocog.engine import candidate, tuner
from neocog.engine.candidate import TOLERANCE, agreement, within
from neocog.settings import from_dict
from test_loop import make

LONG = {"engine": {"epochs": 100_000, "compile": "off"}, "model_args": {"width": 16}}


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return dataset.load(from_dict(Recipe, {"data": {"source": "digits"}}).data)


@pytest.fixture(autouse=True)
def _briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tuner, "MOST", 2.0)
    monkeypatch.setattr(tuner, "ROUNDS", 3)
    monkeypatch.setattr(tuner, "Watch", lambda: Others(0.0))


class Others:
    """Other programs, as busy as is said, one time after the other."""

    def __init__(self, *busy: float) -> None:
        self.busy = list(busy)

    def __call__(self) -> "Others":
        return self

    def others(self) -> float:
        return self.busy.pop(0) if len(self.busy) > 1 else self.busy[0]


def merged(values: dict[str, Any]) -> dict[str, Any]:
    return {**LONG, **values, "engine": {**LONG["engine"], **values.get("engine", {})}}


def test_it_measures_and_takes_the_fastest(digits: Dataset, tmp_path: Path) -> None:
    job = make(digits, merged({"model": "cnn"}))
    before = {name: value.clone() for name, value in job.network.state_dict().items()}
    job.network.eval()
    torch.manual_seed(7)
    chance, threads = torch.get_rng_state(), torch.get_num_threads()
    found = tuner.tune(job, cache=tmp_path)
    assert all(torch.equal(before[k], v) for k, v in job.network.state_dict().items())
    assert not job.network.training
    assert all(parameter.grad is None for parameter in job.network.parameters())
    assert torch.equal(torch.get_rng_state(), chance)
    assert torch.get_num_threads() == threads

    first = found.trials[0]
    assert (first.choice.precision, first.choice.layout) == ("fp32", "contiguous")
    assert first.error == (0, 0)
    times = {trial.choice: trial.seconds for trial in found.trials}
    assert found.choice in times
    fastest = min(times.values())
    assert times[found.choice] in (fastest, first.seconds)
    assert found.gain >= 1
    for trial in found.trials:
        assert within(trial.error, trial.choice.precision)


def test_it_remembers_per_network_batch_and_machine(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make(digits, merged({}))
    found = tuner.tune(job, cache=tmp_path)

    def never(*_: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr(tuner, "_measure", never)
    again = tuner.tune(job, cache=tmp_path)
    assert again.remembered
    assert (again.choice, again.trials) == (found.choice, found.trials)
    for other in (
        make(digits, merged({"engine": {"batch": 32}})),
        make(digits, merged({"model_args": {"width": 17}})),
    ):
        with pytest.raises(AssertionError, match="measured again"):
            tuner.tune(other, cache=tmp_path)
    next(tmp_path.glob("*.json")).write_text("{")
    with pytest.raises(AssertionError, match="measured again"):
        tuner.tune(job, cache=tmp_path)


def test_what_others_disturbed_is_measured_again_later(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "Watch", Others(0.9))
    monkeypatch.setattr(tuner, "MOST", 0.1)
    job = make(digits, merged({}))
    found = tuner.tune(job, cache=tmp_path)
    assert found.busy == 0.9
    assert tuner.tune(job, cache=tmp_path) == dataclasses.replace(found, remembered=True)
    later = time.time() + host.AGAIN
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(tuner, "Watch", Others(0.0))
    again = tuner.tune(job, cache=tmp_path)
    assert (again.remembered, again.busy) == (False, 0.0)
    monkeypatch.setattr(time, "time", lambda: later + 10 * host.AGAIN)
    assert tuner.tune(job, cache=tmp_path).remembered


def test_a_choice_of_fewer_threads_is_remembered(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = make(digits, merged({}))
    job = dataclasses.replace(job, choice=dataclasses.replace(job.choice, threads=2))
    step = candidate.Candidate.step

    def slower(self: candidate.Candidate, batches: Any) -> None:
        step(self, batches)
        self.times[-1] += self.choice.threads

    monkeypatch.setattr(candidate.Candidate, "step", slower)
    found = tuner.tune(job, cache=tmp_path)
    assert found.choice.threads == 1
    assert tuner.tune(job, cache=tmp_path) == dataclasses.replace(found, remembered=True)


@pytest.mark.parametrize(("quiet", "threads"), [(True, 2), (False, 1)])
def test_threads_are_compared_until_nobody_disturbs(
    quiet: bool, threads: int, digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a busy program two threads wait for one another, and one does not."""
    looks: list[float] = [0.9, 0.9, *([0.0] if quiet else [])]
    others = Others(*looks)
    step = candidate.Candidate.step

    def timed(self: candidate.Candidate, batches: Any) -> None:
        step(self, batches)
        two = 0.5 if len(others.busy) == 1 and quiet else 3.0
        self.times[-1] = two if self.choice.threads == 2 else 1.0

    monkeypatch.setattr(candidate.Candidate, "step", timed)
    monkeypatch.setattr(tuner, "Watch", others)
    monkeypatch.setattr(tuner, "WINDOW", 0.05)
    job = make(digits, merged({}))
    job = dataclasses.replace(job, choice=dataclasses.replace(job.choice, threads=2))
    found = tuner.tune(job, cache=tmp_path)
    assert found.choice.threads == threads
    assert found.busy == (0.0 if quiet else 0.9)


def test_busy_processors_do_not_disturb_another_device(digits: Dataset) -> None:
    job = make(digits, merged({}))
    leader = candidate.Candidate(job, dataclasses.replace(job.choice, threads=2))
    there = dataclasses.replace(job, device=torch.device("cuda"))
    assert tuner._fewer_threads(there, leader, [], 0.0, 0.0, lambda: 0.9) == ([], 0.0)


def test_what_the_recipe_says_is_not_tried(digits: Dataset, tmp_path: Path) -> None:
    fixed = {"precision": "fp32", "layout": "contiguous"}
    found = tuner.tune(make(digits, merged({"engine": fixed})), cache=tmp_path)
    assert not found.trials
    assert not list(tmp_path.iterdir())
    found = tuner.tune(make(digits, merged({"engine": {"precision": "bf16"}})), cache=tmp_path)
    assert {trial.choice.precision for trial in found.trials} == {"bf16"}


def test_a_processor_without_bfloat16_is_not_made_to_try_it(
    digits: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuner, "multiplies_bf16", lambda device: False)
    found = tuner.tune(make(digits, merged({})), cache=tmp_path)
    assert {trial.choice.precision for trial in found.trials} == {"fp32"}


def test_what_pytorch_says_of_bfloat16_counts() -> None:
    """PyTorch held to AVX2 has no products in bfloat16."""
    code = "import torch, neocog.machine as m; print(m.multiplies_bf16(torch.device('cpu')))"
    held = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | held,
        capture_output=True,
        text=True,
        check=True,
    )
    assert answer.stdout.strip() == "False"


def test_a_run_too_short_to_gain_is_not_measured(digits: Dataset, tmp_path: Path) -> None:
    found = tuner.tune(make(digits, merged({"engine": {"epochs": 1}})), cache=tmp_path)
    assert not found.trials
    assert (found.choice.precision, found.choice.layout) == ("fp32", "contiguous")


class Careless(nn.Module):
    """Right in fp32, and quick but wrong where arithmetic is lowered."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if torch.is_autocast_enabled("cpu"):
            return self.inner(x * 2)
        weight = torch.zeros(400, 400)
        return self.inner(x) + (weight @ weight)[0, 0]


def test_a_candidate_that_computes_something_else_is_never_taken(
    digits: Dataset, tmp_path: Path
) -> None:
    found = tuner.tune(make(digits, merged({"model_args": {}}), Careless()), cache=tmp_path)
    assert found.trials
    assert {trial.choice.precision for trial in found.trials} == {"fp32"}


def test_a_candidate_that_does_not_run_is_left_out(digits: Dataset, tmp_path: Path) -> None:
    class Refusing(Careless):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if torch.is_autocast_enabled("cpu"):
                raise RuntimeError("not in this precision")
            return self.inner(x)

    found = tuner.tune(make(digits, merged({"model_args": {}}), Refusing()), cache=tmp_path)
    assert {trial.choice.precision for trial in found.trials} == {"fp32"}


@settings(deadline=None)
@given(
    st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3),
    st.lists(st.floats(-10, 10, width=32), min_size=3, max_size=3),
    st.floats(0.1, 10),
    st.floats(0.1, 10),
)
def test_agreement_is_the_relative_difference(
    first: list[float], second: list[float], loss: float, other: float
) -> None:
    a, b = np.array(first, np.float32), np.array(second, np.float32)
    size = float(np.linalg.norm(a))
    if size < 1e-3:
        return
    expected = (abs(other - loss) / loss, float(np.linalg.norm(b - a)) / size)
    found = agreement((loss, torch.from_numpy(a)), (other, torch.from_numpy(b)))
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_what_is_not_finite_never_agrees() -> None:
    good = (1.0, torch.ones(2))
    for bad in ((math.nan, torch.ones(2)), (1.0, torch.tensor([1.0, math.nan]))):
        for precision in TOLERANCE:
            assert not within(agreement(good, bad), precision)
    assert within(agreement(good, good), "fp32")


def test_a_network_that_draws_is_compared_where_it_does_not(
    digits: Dataset, tmp_path: Path
) -> None:
    values = {"model": "cnn", "model_args": {"width": 8, "dropout": 0.5}}
    found = tuner.tune(make(digits, merged(values)), cache=tmp_path)
    assert len({(t.choice.precision, t.choice.layout) for t in found.trials}) >= 3


def test_the_manifest_holds_what_was_chosen(digits: Dataset, tmp_path: Path) -> None:
    import neocog

    recipe = from_dict(Recipe, {"engine": {"epochs": 2, "device": "cpu"}})
    run = neocog.fit("mlp", digits, recipe, out=tmp_path / "run", quiet=True)
    engine = run.recipe.engine
    assert "auto" not in dataclasses.asdict(engine).values()
    assert engine.threads is not None
    assert run.summary["engine"]["precision"] == engine.precision
