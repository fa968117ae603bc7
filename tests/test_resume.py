"""Going on with a run in a world that has changed: asked, refused, or done as told."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from neocog.config import Recipe
from neocog.engine import checkpoint
from neocog.errors import NeocogError, RunError
from neocog.settings import from_dict
from neocog.verbs import prepare
from neocog.verbs.console import Console
from neocog.verbs.train import fit, resume

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from neocog.engine.control import Control
    from neocog.records import Event


def arrays(path: Path, *, seed: int = 0, classes: tuple[str, ...] = ("cat", "dog")) -> Path:
    chance = np.random.default_rng(seed)
    x = chance.integers(0, 256, (60, 8, 8), dtype=np.uint8)
    np.savez(path, x=x, y=np.arange(60) % len(classes), classes=np.array(classes))
    return path


class Said(Console):
    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def stop(event: Event, _: Control) -> None:
    if event.kind == "epoch" and event.values["epoch"] == 2:
        raise KeyboardInterrupt


@pytest.fixture
def cut(tmp_path: Path) -> Callable[..., Path]:
    """A run that was cut in its second epoch, and has a checkpoint of the first."""

    def make(callbacks: tuple[Any, ...] = (stop,), *, quiet: bool = True, **engine: Any) -> Path:
        recipe = from_dict(
            Recipe,
            {
                "data": {"source": str(arrays(tmp_path / "set.npz"))},
                "engine": {"epochs": 3, "device": "cpu"} | engine,
                "model": "mlp",
            },
        )
        with pytest.raises(KeyboardInterrupt):
            fit(recipe=recipe, out=tmp_path / "run", callbacks=callbacks, quiet=quiet)
        return tmp_path / "run"

    return make


def test_callbacks_must_be_handed_over_again(cut: Callable[..., Path]) -> None:
    """A rule that stops or slows a training is part of what it is."""
    run = cut()
    with pytest.raises(RunError, match="callbacks was stop, is "):
        resume(run, console=Said())
    with pytest.raises(KeyboardInterrupt):
        resume(run, console=Said(), callbacks=[stop])
    assert resume(run, console=Said(), anyway=True).finished


@pytest.mark.parametrize("native", [True, False])
def test_bfloat16_is_warned_of_where_no_instruction_multiplies_it(
    cut: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    native: bool,
) -> None:
    """Minutes for a step otherwise look like a program that hangs."""
    monkeypatch.setattr(prepare, "multiplies_bf16", lambda device: native)
    run = cut(precision="bf16", quiet=False)
    warning = "warning: this processor has no instructions for bfloat16"
    assert (warning in capsys.readouterr().err) != native
    said = Said()
    assert resume(run, console=said, anyway=True).finished
    assert any(line.startswith(warning) for line in said.lines) != native


@pytest.fixture
def killed(cut: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run without callbacks that was cut after its first epoch."""
    save = checkpoint.save

    def once(folder: Path, *args: Any, **rest: Any) -> Path:
        path = save(folder, *args, **rest)
        raise KeyboardInterrupt(path)

    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "save", once)
        return cut(())


def test_changed_data_is_refused_by_name_with_both_values(killed: Path) -> None:
    arrays(killed.parent / "set.npz", seed=1)
    with pytest.raises(RunError, match=r"data was \w{38} …, is \w{38} …") as caught:
        resume(killed, console=Said())
    assert f"neocog resume {killed} --anyway" in caught.value.hint
    said = Said()
    assert resume(killed, console=said, anyway=True).finished
    assert any(line.startswith("warning: data was") for line in said.lines)


def test_other_classes_are_refused_and_cannot_be_forced_where_they_do_not_fit(
    killed: Path,
) -> None:
    arrays(killed.parent / "set.npz", classes=("cat", "dog", "emu"))
    with pytest.raises(RunError, match="classes was cat, dog, is cat, dog, emu"):
        resume(killed, console=Said())
    events = (killed / "events.jsonl").read_bytes()
    with pytest.raises(NeocogError, match="expected"):
        resume(killed, console=Said(), anyway=True)
    assert (killed / "events.jsonl").read_bytes() == events  # nothing was cut


def test_a_setting_that_was_edited_is_named(killed: Path) -> None:
    manifest = json.loads((killed / "manifest.json").read_text())
    manifest["config"]["optim"]["lr"] = 0.5
    (killed / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(RunError, match=r"settings\.optim\.lr was None, is 0\.5"):
        resume(killed, console=Said())


def test_data_that_was_moved_is_still_the_same(killed: Path) -> None:
    moved = killed.parent / "elsewhere.npz"
    shutil.move(killed.parent / "set.npz", moved)
    with pytest.raises(RunError, match="cannot be opened"):
        resume(killed, console=Said())
    manifest = json.loads((killed / "manifest.json").read_text())
    manifest["config"]["data"]["source"] = str(moved)
    (killed / "manifest.json").write_text(json.dumps(manifest))
    said = Said()
    assert resume(killed, console=said).finished
    assert not [line for line in said.lines if "warning" in line]


def test_events_that_are_missing_are_noticed(killed: Path) -> None:
    path = killed / "events.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:3]))
    with pytest.raises(RunError, match=r"holds 3 events, its checkpoint counts \d+"):
        resume(killed, console=Said())


def test_a_checkpoint_that_outlived_its_time_goes_when_the_run_goes_on(tmp_path: Path) -> None:
    """A kill between the last save and the pruning of those before it leaves three."""
    recipe = from_dict(Recipe, {"model": "mlp", "engine": {"epochs": 3, "precision": "fp32"}})
    run = fit(None, "digits", recipe, out=tmp_path / "run", quiet=True)
    folder = tmp_path / "run" / "checkpoints"
    kept = sorted(one.name for one in folder.iterdir())
    oldest = next(one for one in sorted(folder.iterdir()) if one.name.startswith("step-"))
    (folder / "step-00000001.safetensors").write_bytes(oldest.read_bytes())
    for name in ("evaluation.json", "report.html"):
        (run.path / name).unlink()
    resume(run.path)
    assert sorted(one.name for one in folder.iterdir()) == kept
