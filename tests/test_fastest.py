"""The measuring step: engines of known speed, some of which answer wrongly or not at all."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch

from neocog.described import Described
from neocog.errors import ConfigError, RunError
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
from neocog.runtime import fastest as measuring
from neocog.runtime.fastest import Candidate, candidates, difference, fastest
from served import small_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.runtime.engine import Engine, Kind

SAMPLES = np.arange(4 * 3 * 5 * 5, dtype=np.uint8).reshape(4, 3, 5, 5)
RIGHT = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4], [0.5001, 0.4999]], np.float32)


def _described(task: str = "classify") -> Described:
    return Described(
        model=ModelSpec(name="cnn", args={}),
        input=InputSpec(channels=3, size=(5, 5), mean=(0.5,) * 3, std=(0.2,) * 3),
        task=TaskSpec(name=task, args={"classes": ["a", "b"]}),
        classes=("a", "b"),
        manifest=Manifest(config={}, seed=0, versions={}, argv=(), device={}, data={}),
    )


class Slow:
    """An engine that sleeps as long as it is told, then says what it is told."""

    digest = "0"
    dtypes = ("uint8",)

    def __init__(
        self, name: str, seconds: float, answers: NDArray[Any], kind: Kind, task: str
    ) -> None:
        self.name, self.seconds, self.answers, self.kind = name, seconds, answers, kind
        self.described = _described(task)
        self.settings: dict[str, Any] = {}

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        assert samples is SAMPLES
        time.sleep(self.seconds)
        return self.answers


class Crew:
    """Candidates that note how often each was made."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def of(
        self,
        name: str,
        seconds: float,
        answers: NDArray[Any] = RIGHT,
        *,
        kind: Kind = "torch",
        threads: int = 1,
        task: str = "classify",
    ) -> Candidate:
        def make() -> Engine:
            self.made.append(name)
            return Slow(name, seconds, answers, kind, task)

        return Candidate(kind=kind, threads=threads, digest=kind, make=make)


def _names(trials: tuple[Any, ...]) -> list[tuple[str, int]]:
    return [(one.kind, one.threads) for one in trials]


def test_the_fastest_is_taken_and_remembered(tmp_path: Path) -> None:
    crew = Crew()
    given = [
        crew.of("slow", 0.02),
        crew.of("quick", 0.002, kind="onnxruntime"),
        crew.of("middle", 0.01, kind="openvino"),
    ]
    found = fastest(given, SAMPLES, cache=tmp_path)
    assert isinstance(found.engine, Slow)
    assert found.engine.name == "quick"
    assert not found.remembered
    assert [one.kind for one in found.trials] == ["torch", "onnxruntime", "openvino"]
    for one, least in zip(found.trials, (0.02, 0.002, 0.01), strict=True):
        assert least <= one.seconds < least + 0.05
        assert one.difference == 0
        assert one.calls >= measuring.ENOUGH
    crew.made.clear()
    again = fastest(given, SAMPLES, cache=tmp_path)
    assert again.remembered
    assert isinstance(again.engine, Slow)
    assert again.engine.name == "quick"
    assert crew.made == ["quick"]
    assert again.trials == found.trials


@pytest.mark.parametrize("change", ["batch", "file", "tolerance"])
def test_what_was_measured_for_something_else_is_not_used(change: str, tmp_path: Path) -> None:
    crew = Crew()
    given = [crew.of("slow", 0.01), crew.of("quick", 0.001, kind="onnxruntime")]
    assert not fastest(given, SAMPLES, cache=tmp_path, seconds=0.3).remembered
    tolerance = 1e-4
    if change == "file":
        other = given[1]
        given[1] = Candidate(
            kind=other.kind, threads=other.threads, digest="other", make=other.make
        )
    elif change == "tolerance":
        tolerance = 1e-5
    else:
        key = measuring._key(given, SAMPLES, tolerance)
        assert key != measuring._key(given, SAMPLES[:2], tolerance)
        assert key == measuring._key(given, SAMPLES + 1, tolerance)
        return
    assert not fastest(given, SAMPLES, cache=tmp_path, seconds=0.3, tolerance=tolerance).remembered


@pytest.mark.parametrize("damage", ["{", "[]", '{"choice": {}, "trials": [], "seconds": 1}', ""])
def test_a_damaged_memory_is_measured_again(damage: str, tmp_path: Path) -> None:
    crew = Crew()
    given = [crew.of("slow", 0.005), crew.of("quick", 0.001, kind="onnxruntime")]
    fastest(given, SAMPLES, cache=tmp_path, seconds=0.3)
    (file,) = tmp_path.glob("*.json")
    file.write_text(damage)
    assert not fastest(given, SAMPLES, cache=tmp_path, seconds=0.3).remembered
    assert json.loads(file.read_text())["choice"]["kind"] == "onnxruntime"


def _moved(by: float) -> NDArray[Any]:
    return (RIGHT + np.array([by, -by], np.float32)).astype(np.float32)


WRONG: dict[str, NDArray[Any]] = {
    "beyond the tolerance": _moved(3e-4),
    "another label within it": _moved(-2e-4),
    "NaN": np.where(RIGHT > 0.85, np.nan, RIGHT).astype(np.float32),
    "another shape": RIGHT[:, :1],
    "the classes exchanged": RIGHT[:, ::-1].copy(),
}


@pytest.mark.parametrize("name", WRONG)
def test_one_that_answers_otherwise_is_never_taken(name: str, tmp_path: Path) -> None:
    crew = Crew()
    tolerance = 1e-3 if name == "another label within it" else 1e-4
    given = [crew.of("slow", 0.01), crew.of("wrong", 0.0, WRONG[name], kind="onnxruntime")]
    found = fastest(given, SAMPLES, cache=tmp_path, seconds=0.3, tolerance=tolerance)
    assert isinstance(found.engine, Slow)
    assert found.engine.name == "slow"
    assert _names(found.trials) == [("torch", 1)]
    assert "onnxruntime" in found.remarks[0]
    assert "differ" in found.remarks[0]


def test_one_that_differs_by_less_is_taken(tmp_path: Path) -> None:
    crew = Crew()
    near = crew.of("near", 0.001, _moved(5e-5), kind="onnxruntime")
    found = fastest([crew.of("slow", 0.01), near], SAMPLES, cache=tmp_path, seconds=0.3)
    assert isinstance(found.engine, Slow)
    assert found.engine.name == "near"
    assert found.trials[1].difference == pytest.approx(5e-5, rel=0.01)


@pytest.mark.parametrize("error", [ConfigError("not installed", "pip"), RuntimeError("broken\x07")])
@pytest.mark.parametrize("when", ["made", "asked"])
def test_one_that_fails_is_dropped_with_a_remark(
    error: Exception, when: str, tmp_path: Path
) -> None:
    def fail(*_: object) -> Any:
        raise error

    class Failing(Slow):
        __call__ = fail

    make: Callable[[], Engine] = (
        fail if when == "made" else lambda: Failing("", 0, RIGHT, "openvino", "classify")
    )
    broken = Candidate(kind="openvino", threads=1, digest="x", make=make)
    crew = Crew()
    found = fastest([crew.of("slow", 0.002), broken], SAMPLES, cache=tmp_path, seconds=0.2)
    assert isinstance(found.engine, Slow)
    assert found.engine.name == "slow"
    (remark,) = found.remarks
    assert remark.startswith("openvino with 1 thread(s) on cpu: ")
    assert "not installed" in remark or "broken\\x07" in remark


def test_an_error_of_the_reference_is_one(tmp_path: Path) -> None:
    def fail() -> Any:
        raise ConfigError("no such device", "")

    broken = Candidate(kind="torch", threads=1, digest="x", make=fail)
    with pytest.raises(ConfigError, match="no such device"):
        fastest([broken, Crew().of("other", 0, kind="openvino")], SAMPLES, cache=tmp_path)


def test_a_little_faster_is_no_reason(tmp_path: Path) -> None:
    crew = Crew()
    given = [crew.of("first", 0.02), crew.of("second", 0.0199, kind="onnxruntime")]
    found = fastest(given, SAMPLES, cache=tmp_path, seconds=0.5)
    assert isinstance(found.engine, Slow)
    assert found.engine.name == "first"


def test_fewer_threads_are_tried_of_the_leader_alone(tmp_path: Path) -> None:
    crew = Crew()
    given = [
        *(crew.of(f"torch {n}", 0.01, threads=n) for n in (4, 2, 1)),
        *(
            crew.of(f"onnx {n}", 0.001 + 0.001 * n, kind="onnxruntime", threads=n)
            for n in (4, 2, 1)
        ),
    ]
    found = fastest(given, SAMPLES, cache=tmp_path, seconds=1)
    assert crew.made == ["torch 4", "onnx 4", "onnx 2", "onnx 1"]
    assert isinstance(found.engine, Slow)
    assert found.engine.name == "onnx 1"


def test_one_candidate_is_not_measured(tmp_path: Path) -> None:
    found = fastest([Crew().of("only", 60)], SAMPLES, cache=tmp_path)
    assert found.trials == ()
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="at least one"):
        fastest([], SAMPLES, cache=tmp_path)


def test_measuring_ends(tmp_path: Path) -> None:
    """Where a call takes longer than there is time for, the result is used, and not remembered."""
    crew = Crew()
    given = [
        crew.of("slow", 0.2),
        crew.of("quick", 0.1, kind="onnxruntime"),
        crew.of("late", 0.05, kind="openvino"),
    ]
    began = time.monotonic()
    found = fastest(given, SAMPLES, cache=tmp_path, seconds=0.1)
    assert time.monotonic() - began < 2
    assert "late" not in crew.made
    assert isinstance(found.engine, Slow)
    assert found.engine.name == "quick"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("each", "asked"), [(0.0, {32, 64}), (0.002, {32})])
def test_all_samples_are_timed_where_there_is_time_for_them(
    each: float, asked: set[int], tmp_path: Path
) -> None:
    """A call of 64 takes 0.128 s or nothing, where an eighth of 0.6 s is allowed for it."""
    seen: dict[str, set[int]] = {}

    def of(kind: Kind) -> Candidate:
        class Paced(Slow):
            def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
                seen.setdefault(kind, set()).add(len(samples))
                time.sleep(each * len(samples))
                return np.full((len(samples), 2), 0.5, np.float32)

        make = lambda: Paced("", 0, RIGHT, kind, "classify")  # noqa: E731
        return Candidate(kind=kind, threads=1, digest=kind, make=make)

    samples = np.zeros((64, 3, 5, 5), np.uint8)
    fastest([of("torch"), of("onnxruntime")], samples, cache=tmp_path, seconds=0.6)
    assert seen == {"torch": asked, "onnxruntime": asked - {32} or {32}}


def test_labels_are_those_of_the_task() -> None:
    flipped = RIGHT.copy()
    flipped[3] = [0.4999, 0.5001]
    for task, apart in {
        "classify": float("inf"),
        "multilabel": float("inf"),
        "regress": 2e-4,
    }.items():
        engine = Slow("", 0, RIGHT, "torch", task)
        assert difference(engine, RIGHT, flipped) == pytest.approx(apart, rel=0.01)
    engine = Slow("", 0, RIGHT, "torch", "regress")
    assert difference(engine, np.array([[1000.0]]), np.array([[1001.0]])) == pytest.approx(1e-3)
    masks = np.full((1, 2, 3, 3), 0.5, np.float32)
    other = masks + np.array([1e-7, -1e-7], np.float32)[:, None, None]
    assert difference(Slow("", 0, masks, "torch", "segment"), masks, other) < 1e-6


def test_the_candidates_of_a_folder_compute_and_leave_the_threads_as_they_were(
    tmp_path: Path,
) -> None:
    small_bundle().save(tmp_path / "run" / "bundle")
    threads = torch.get_num_threads()
    found = candidates(tmp_path / "run", device="cpu")
    assert {one.kind for one in found} == {"torch"}
    numbers = [one.threads for one in found]
    assert numbers == sorted(set(numbers), reverse=True)
    assert numbers[-1] == 1
    samples = np.random.default_rng(0).integers(0, 256, (4, 3, 12, 10), dtype=np.uint8)
    chosen = fastest(found, samples, cache=tmp_path / "cache", seconds=0.5)
    assert chosen.engine.kind == "torch"
    assert chosen.engine(samples).shape == (4, 5)
    assert chosen.engine.settings["threads"] in numbers
    torch.set_num_threads(threads)
    assert [one.threads for one in candidates(tmp_path / "run", device="cpu", threads=3)] == [3]
    (tmp_path / "net.pt").write_bytes(b"")
    with pytest.raises(RunError, match="may run code"):
        candidates(tmp_path / "net.pt")
