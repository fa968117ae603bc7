"""The task seam: a kind of target that neocog has never heard of, from its reader to its report.

What a new task must touch is what this file adds: the task, a reader, and lines in two tables.
Nothing of the engine, the checkpoints, the plan or the command line knows of it.
"""

from __future__ import annotations

import ast
import json
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from torch import Tensor

import neocog
from neocog import tasks
from neocog.cli import cli
from neocog.config import Recipe
from neocog.data import sources
from neocog.data.samples import Part, Source
from neocog.metrics.intervals import mean_ends
from neocog.records import Batch, Interval, Scores, TaskSpec
from neocog.settings import from_dict
from neocog.verbs.train import fit, resume

if TYPE_CHECKING:
    from collections.abc import Sequence

    from neocog.config import LossRecipe
    from neocog.engine.control import Control
    from neocog.records import Event

SRC = Path(neocog.__file__).parent


class Errors:
    """Degrees between truth and answer."""

    def __init__(self) -> None:
        self.errors: list[float] = []
        self.losses: list[float] = []

    def update(self, answers: Tensor, losses: Tensor, batch: Batch) -> None:
        away = (answers - batch.targets[:, 0]).remainder(360)
        self.errors += torch.minimum(away, 360 - away)[batch.valid].tolist()
        self.losses += losses[batch.valid].tolist()

    def values(self) -> dict[str, float]:
        return {"angle_error": float(np.mean(self.errors)), "loss": float(np.mean(self.losses))}

    def scores(self) -> Scores:
        n = len(self.errors)
        found = {}
        for name, values in (("angle_error", self.errors), ("loss", self.losses)):
            mean = float(np.mean(values))
            low, high = mean_ends(mean, float(np.square(values).sum()), n)
            found[name] = Interval(value=mean, low=low, high=high, n=n)
        return Scores(metrics=found)


class Angle:
    """The direction of a picture's gradient, answered as a point on the circle."""

    SETTINGS = ()

    @classmethod
    def for_data(
        cls, classes: Sequence[str], targets: np.ndarray[Any, Any], kind: str, loss: LossRecipe
    ) -> Angle:
        return cls(columns=list(classes))

    def __init__(self, *, columns: list[str]) -> None:
        self.classes = tuple(columns)
        self.spec = TaskSpec(name="angle", args={"columns": columns})
        self.outputs = 2

    def shape(self, size: tuple[int, ...]) -> tuple[int, ...]:
        return (2,)

    def loss(self, outputs: Tensor, batch: Batch, *, training: bool = False) -> Tensor:
        goal = torch.deg2rad(batch.targets[:, 0])
        return (outputs - torch.stack([goal.cos(), goal.sin()], 1)).square().sum(1)

    def decode(self, outputs: Tensor) -> Tensor:
        return torch.rad2deg(torch.atan2(outputs[:, 1], outputs[:, 0])).remainder(360)

    def statistics(self) -> Errors:
        return Errors()

    def answer(self, decoded: Tensor) -> list[dict[str, Any]]:
        return [
            {"label": f"{one:.0f}°", "probability": None, "top": []} for one in decoded.tolist()
        ]

    def truth(self, targets: Tensor) -> list[str]:
        return [f"{one:.0f}°" for one in targets[:, 0].tolist()]


def ramps(count: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Pictures that grow lighter in one direction, and the direction in degrees."""
    angles = np.random.default_rng(0).uniform(0, 360, count)
    down, right = np.mgrid[-1:1:12j, -1:1:12j]
    turned = [math.cos(a) * right + math.sin(a) * down for a in np.radians(angles)]
    return (127 + 80 * np.stack(turned)).astype(np.uint8)[..., None], angles


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Enter the task and its reader; the path of a data set of its kind."""
    module = ModuleType("neocog.tasks.angle")
    module.Angle = Angle  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "neocog.tasks.angle", module)
    entry = tasks.Entry(factory="tasks.angle:Angle", kind="angle")
    monkeypatch.setitem(tasks.CATALOGUE, "angle", entry)
    pixels, angles = ramps(160)
    part = Part(
        names=tuple(f"ramp[{n}]" for n in range(160)),
        splits=("",) * 160,
        targets=tuple((angle,) for angle in angles.tolist()),
        pixels=pixels,
    )
    source = Source(kind="ramps", target="angle", classes=("degrees",), parts=(part,))  # type: ignore[arg-type]
    path = tmp_path / "ramps"
    path.mkdir()
    monkeypatch.setattr(sources, "read", lambda *_, **__: source)
    return path


def call(capsys: pytest.CaptureFixture[str], *words: object) -> Any:
    """The JSON that a command prints."""
    cli.main([str(word) for word in words] + ["--json"], standalone_mode=False)
    return json.loads(capsys.readouterr().out)


def test_a_new_task_goes_all_the_way(
    toy: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    common = ["--model", "mlp", "--set", "augment.flip=0", "--set", "augment.shift=0"]
    found = call(capsys, "train", toy, *common, "--epochs", 30, "--val", 0.25, "--out", out)
    error = found["val"]["angle_error"]
    assert error["n"] == 40
    assert error["low"] <= error["value"] < 30  # chance is 90
    assert call(capsys, "eval", out)["angle_error"] == error
    pixels, angles = ramps(160)
    np.savez(tmp_path / "some.npz", x=pixels[:20])
    answers = call(capsys, "predict", out, tmp_path / "some.npz")
    away = [(float(one["label"][:-1]) - a) % 360 for one, a in zip(answers, angles, strict=False)]
    assert np.mean([min(x, 360 - x) for x in away]) < 30
    assert call(capsys, "plan", out, "--no-time")["parameters"] > 0
    page = (out / "report.html").read_text()
    assert "angle error" in page
    assert f"{error['value']:.3g}"[:3] in page


def test_a_new_task_keeps_to_its_time_and_goes_on_after_a_stop(toy: Path, tmp_path: Path) -> None:
    data = {"data": {"source": str(toy)}, "model": "mlp"}
    timed = from_dict(Recipe, {**data, "engine": {"minutes": 0.15}})
    run = fit(recipe=timed, out=tmp_path / "timed", quiet=True)
    assert run.summary["reason"] == "the time is up"
    assert run.summary["steps"] > 0
    recipe = from_dict(Recipe, {**data, "engine": {"epochs": 4}})

    def stop(event: Event, _: Control) -> None:
        if event.kind == "epoch" and event.values["epoch"] == 2:
            raise KeyboardInterrupt

    whole = fit(recipe=recipe, out=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        fit(recipe=recipe, out=tmp_path / "cut", callbacks=[stop], quiet=True)
    again = resume(tmp_path / "cut", anyway=True)
    for name, tensor in whole.bundle.weights.items():
        assert torch.equal(tensor, again.bundle.weights[name])
    assert whole.summary["val"] == again.summary["val"]


def test_the_engine_and_the_command_line_know_no_task() -> None:
    """No text of a task's or target's name in their code; documentation may give examples."""
    names = {*tasks.CATALOGUE, *(entry.kind for entry in tasks.CATALOGUE.values())} - {"class"}
    for path in (*(SRC / "engine").glob("*.py"), *(SRC / "cli").glob("*.py"), SRC / "argv.py"):
        tree = ast.parse(path.read_text())
        said = {id(one.value) for one in ast.walk(tree) if isinstance(one, ast.Expr)}
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and id(node) not in said:
                assert node.value not in names, f"{path.name}:{node.lineno} asks for {node.value}"
            if isinstance(node, ast.ImportFrom):
                assert not (node.module or "").startswith("neocog.tasks"), path.name
