"""The Python face: load, build, fit, open."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import neocog
from neocog.config import AugmentRecipe, DataRecipe, EngineRecipe, Recipe, StopRecipe
from neocog.engine.control import Control
from neocog.errors import ConfigError
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


def test_the_recipe_decides_what_the_call_leaves_out(tmp_path: Path) -> None:
    source = DataRecipe(source="digits", val=0.5)
    recipe = dataclasses.replace(SHORT, model="mlp", data=source)
    run = neocog.fit(recipe=recipe, out=tmp_path / "run", quiet=True)
    assert run.manifest.config["model"] == "mlp"
    assert run.scores["val"].metrics["accuracy"].n == 899
    with pytest.raises(neocog.NeocogError, match="differ"):
        neocog.fit("mlp", neocog.load("digits", val=0.3), recipe, out=tmp_path / "b", quiet=True)
    with pytest.raises(neocog.NeocogError, match="data is a source"):
        neocog.fit("mlp", 3, out=tmp_path / "b", quiet=True)  # type: ignore[arg-type]


def test_a_start_that_fails_leaves_no_run(tmp_path: Path) -> None:
    recipe = dataclasses.replace(SHORT, stop=StopRecipe(patience=1, monitor="val_acc"))
    with pytest.raises(neocog.NeocogError, match="val_acc"):
        neocog.fit("mlp", "digits", recipe, out=tmp_path / "run", quiet=True)
    assert not (tmp_path / "run").exists()


def test_sources_may_be_paths(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (8, 6, 6), np.uint8)
    for name in ("main", "val", "test"):
        np.savez(tmp_path / f"{name}.npz", x=images, y=np.arange(8) % 2)
    main, val, test = (tmp_path / f"{name}.npz" for name in ("main", "val", "test"))
    data = neocog.load(main, val=val, test=test)
    assert {name: len(ids) for name, ids in data.splits.items()} == {
        "train": 8,
        "val": 8,
        "test": 8,
    }
    assert data.recipe == neocog.load(str(main), val=str(val), test=str(test)).recipe
    wrong: tuple[dict[str, Any], ...] = (
        {"source": 3},
        {"source": None},
        {"source": b"digits"},
        {"source": "digits", "val": [0.1]},
        {"source": "digits", "val": True},
        {"source": "digits", "val": None},
        {"source": "digits", "test": 0.1},
        {"source": "digits", "test": None},
    )
    for arguments in wrong:
        name = list(arguments)[-1]
        with pytest.raises(ConfigError, match=rf"data\.{name} takes"):
            neocog.load(**arguments)


def test_one_label_is_a_question_of_yes_or_no(tmp_path: Path) -> None:
    """A table whose rows have the one label or none trains and is scored."""
    rows = []
    for index in range(40):
        shade, label = (60, "") if index % 2 else (200, "bright")
        noise = np.random.default_rng(index).integers(-40, 41, (8, 8))
        Image.fromarray((shade + noise).astype(np.uint8)).save(tmp_path / f"{index}.png")
        rows.append(f"{index}.png,{label},{'val' if index >= 30 else 'train'}")
    (tmp_path / "t.csv").write_text("path,labels,split\n" + "\n".join(rows))
    data = neocog.load(tmp_path / "t.csv")
    assert (data.kind, data.classes) == ("labels", ("bright",))
    run = neocog.fit("mlp", data, SHORT, out=tmp_path / "run", quiet=True)
    accuracy = run.scores["val"].metrics["accuracy"]
    assert accuracy.n == 10
    assert accuracy.value > 0.8
    (tmp_path / "none.csv").write_text("path,labels\n1.png,\n3.png,\n")
    found = run.evaluate(str(tmp_path / "none.csv"))["all"]
    assert found.metrics["accuracy"].n == 2
    assert found.classes[0].n == 0


def test_a_set_shows_itself() -> None:
    data = neocog.load("digits")
    assert "1,797" in repr(data)
    assert "<table" in data._repr_html_()
