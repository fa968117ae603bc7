"""The Python face: load, build, fit, open."""

from pathlib import Path

import pytest
import torch
from torch import nn

import neocog
from neocog.config import AugmentRecipe, EngineRecipe, Recipe
from neocog.engine.control import Control
from neocog.records import Event

SHORT = Recipe(engine=EngineRecipe(epochs=2, device="cpu"), augment=AugmentRecipe(shift=0.0))


def test_load_build_fit_open(tmp_path: Path) -> None:
    data = neocog.load("digits", val=0.2)
    network = neocog.build("cnn", data, width=8, depth=1)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    network.eval()
    run = neocog.fit(network, data, SHORT, out=tmp_path / "run", quiet=True)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not network.training
    accuracy = run.scores["val"].metrics["accuracy"]
    assert accuracy.n == 359
    assert accuracy.value > 0.5
    assert "accuracy" in repr(run)
    assert "accuracy" in run._repr_html_()
    assert run.manifest.argv == ("neocog.fit",)

    with pytest.raises(neocog.NeocogError, match="not one of neocog's own"):
        neocog.open(tmp_path / "run").predictor()
    shape = neocog.build("cnn", data, width=8, depth=1)
    again = neocog.open(tmp_path / "run", model=shape)
    assert again.evaluate()["val"].metrics["accuracy"] == accuracy


def test_fit_by_name_takes_callbacks_and_a_second_seed(tmp_path: Path) -> None:
    seen = []

    def watch(event: object, control: object) -> None:
        seen.append(event)

    data = neocog.load("digits", val=0.2, seed=5)
    run = neocog.fit("mlp", data, SHORT, out=tmp_path / "run", callbacks=[watch], quiet=True)
    assert seen
    assert run.evaluate()["val"] == run.scores["val"]


def test_a_module_of_ones_own_is_resumed_by_handing_it_over(tmp_path: Path) -> None:
    def give_up(event: Event, control: Control) -> None:
        if event.kind == "epoch":
            raise KeyboardInterrupt

    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    whole = neocog.fit(module, "digits", SHORT, out=tmp_path / "whole", quiet=True)
    with pytest.raises(KeyboardInterrupt):
        neocog.fit(module, "digits", SHORT, out=tmp_path / "run", callbacks=[give_up], quiet=True)
    with pytest.raises(neocog.NeocogError, match="hand the module over"):
        neocog.resume(tmp_path / "run")
    run = neocog.resume(tmp_path / "run", model=module)
    assert run.scores == whole.scores


def test_any_module_trains(tmp_path: Path) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    run = neocog.fit(module, "digits", SHORT, out=tmp_path / "run", quiet=True)
    assert run.predictor()(torch.zeros(2, 1, 8, 8, dtype=torch.uint8)).shape == (2, 10)
    with pytest.raises(ValueError, match="expected uint8"):
        run.predictor()(torch.zeros(2, 1, 8, 8))


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Flatten(), nn.Linear(64, 7)), r"gives \(2, 7\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(99, 10)), "does not take float32 pictures"),
        (nn.Conv2d(1, 10, 3), r"gives \(2, 10, 6, 6\)"),
    ],
)
def test_a_module_that_does_not_fit_is_refused_before_a_folder_is_made(
    module: nn.Module, words: str, tmp_path: Path
) -> None:
    with pytest.raises(neocog.NeocogError, match=words):
        neocog.fit(module, "digits", SHORT, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_a_set_shows_itself() -> None:
    data = neocog.load("digits")
    assert "1,797" in repr(data)
    assert "<table" in data._repr_html_()
