"""Networks as people bring them: what trains here, and what is told before anything is written."""

from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import neocog
from neocog.config import Recipe
from neocog.data import dataset
from neocog.errors import ConfigError, RunError
from neocog.settings import from_dict


class Lazy(nn.Module):
    """Whose layers find out how many channels come in, as in the lessons of d2l.ai."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.LazyConv2d(8, 3), nn.LazyBatchNorm2d()
        self.last = nn.LazyLinear(10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.norm(self.first(x)).relu().flatten(1))
        return found


class Both(NamedTuple):
    logits: Tensor
    aux_logits: Tensor


class Auxiliary(nn.Module):
    """As torchvision's GoogLeNet: two answers while it trains, one else."""

    def __init__(self) -> None:
        super().__init__()
        self.main, self.other = nn.Linear(64, 10), nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor | Both:
        x = x.flatten(1)
        return Both(self.main(x), self.other(x)) if self.training else self.main(x)


class Narrow(nn.Module):
    """Whose auxiliary branch wants larger pictures."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            F.avg_pool2d(x, 9)
        found: Tensor = self.last(x.flatten(1))
        return found


class Squeezing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 8, 3), nn.Linear(8, 10)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(F.adaptive_avg_pool2d(self.first(x).relu(), 1).squeeze())
        return found


class Alone(Squeezing):
    """Fails where there is no batch any more."""

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(self.first(x).relu().mean((2, 3)).squeeze().flatten(1))
        return found


class Half(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(64, 10).half()

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.last(x.half().flatten(1)).float()
        return found


def recipe(**engine: Any) -> Recipe:
    values = {"epochs": 2, "device": "cpu", **engine}
    return from_dict(Recipe, {"data": {"source": "digits"}, "engine": values})


@pytest.mark.parametrize(
    ("module", "told", "hint"),
    [
        (Auxiliary(), "gives a Both while it trains, expected one tensor", "aux_logits=False"),
        (Squeezing(), r"gives \(10,\) for one picture, this task needs \(1, 10\)", "x.flatten(1)"),
        (Alone(), r"does not take float32 pictures \(1, 1, 8, 8\)", "x.flatten(1)"),
        (Narrow(), "fails while it trains, on float32 pictures", "in both modes"),
        (Half(), "weights are float16, expected float32 alone", "module.float()"),
    ],
    ids=lambda one: type(one).__name__ if isinstance(one, nn.Module) else "",
)
def test_what_would_fail_later_is_told_before_anything_is_written(
    module: nn.Module, told: str, hint: str, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=told) as error:
        neocog.fit(module, recipe=recipe(), out=tmp_path / "run")
    assert hint in error.value.hint
    assert not (tmp_path / "run").exists()


def test_lazy_layers_of_another_network_are_told(tmp_path: Path) -> None:
    run = neocog.fit(Lazy(), recipe=recipe(), out=tmp_path / "run")

    class Other(Lazy):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x[:, :, :1])

    with pytest.raises(RunError, match="lazy layers"):
        neocog.open(run.path, model=Other()).predictor()


def test_lazy_layers_find_their_sizes(tmp_path: Path) -> None:
    run = neocog.fit(Lazy(), recipe=recipe(epochs=4), out=tmp_path / "run")
    accuracy = run.scores["val"].metrics["accuracy"].value
    assert accuracy > 0.5
    data = dataset.load(recipe().data)
    images = data.images.gather(torch.arange(20), data.size)
    again = neocog.open(run.path, model=Lazy()).predictor()
    assert torch.equal(again(images), run.predictor()(images))
    twice = neocog.fit(Lazy(), recipe=recipe(epochs=4), out=tmp_path / "twice")
    assert twice.scores["val"].metrics["accuracy"].value == accuracy
