"""Auxiliary heads in training, against the formula by hand; and only there."""

import copy
import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from neocog.config import Recipe
from neocog.data import dataset
from neocog.data.dataset import Dataset
from neocog.engine import optim, tuner
from neocog.engine.heads import Heads
from neocog.engine.job import Job
from neocog.engine.step import Stepped, train_step
from neocog.errors import ConfigError
from neocog.layers import Normalize
from neocog.models import catalog
from neocog.records import Batch
from neocog.settings import from_dict
from test_loop import make, run

WEIGHT = 0.7
SMOOTHING = 0.1


class Three(nn.Module):
    """tanh(x·Wᵀ) and three heads over it, two of them auxiliary."""

    auxiliary_weight = WEIGHT

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(64, 6, bias=False)
        self.heads = nn.ModuleList(nn.Linear(6, 10, bias=False) for _ in range(3))

    def forward_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
        hidden = torch.tanh(self.body(x.flatten(1)))
        return tuple(head(hidden) for head in self.heads)

    def forward(self, x: Tensor) -> Tensor:
        return self.forward_auxiliary(x)[0]


class Strict(Three):
    """Answers with all heads in training only, and with the main one outside only."""

    def forward_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
        assert self.training, "asked for auxiliary heads outside training"
        return super().forward_auxiliary(x)

    def forward(self, x: Tensor) -> Tensor:
        assert not self.training, "trained without its auxiliary heads"
        return super().forward_auxiliary(x)[0]


@pytest.fixture(scope="module")
def digits() -> Dataset:
    return dataset.load(from_dict(Recipe, {"data": {"source": "digits"}}).data)


def few(digits: Dataset, count: int) -> Dataset:
    splits = {part: ids[:count] for part, ids in digits.splits.items()}
    return dataclasses.replace(digits, splits=splits)


def step(job: Job, batches: list[Batch], *, compiled: bool = False) -> Stepped:
    optimizers = optim.build(job.network, job.recipe.optim)
    optimizers.set_lr(0.0)
    job.network.train()
    return train_step(
        Heads(job.network, compiled=compiled),
        list(job.network.parameters()),
        batches,
        job=job,
        normalize=Normalize(job.input.mean, job.input.std),
        optimizers=optimizers,
        scaler=torch.amp.GradScaler("cpu", enabled=False),
    )


def batch(digits: Dataset, ids: range, valid: list[bool]) -> Batch:
    rows = torch.tensor(ids)
    return Batch(
        images=digits.images.gather(rows, digits.size),
        targets=digits.targets[rows],
        weights=0.5 + torch.arange(len(ids)) / 4,
        valid=torch.tensor(valid),
        ids=rows,
    )


def simple(digits: Dataset, network: nn.Module) -> Job:
    values = {
        "model_args": {},
        "optim": {"name": "sgd", "lr": 0.1},
        "loss": {"label_smoothing": SMOOTHING},
        "engine": {"layout": "contiguous"},
    }
    return make(digits, values, network)


def by_hand(job: Job, net: Three, batches: list[Batch]) -> tuple[float, list[np.ndarray]]:
    """Σ sᵢ (L₀ + w · (L₁ + L₂)) / Σ sᵢ and its gradients, in float64 without autograd."""
    joined = {
        name: np.concatenate([getattr(one, name).numpy() for one in batches])
        for name in ("images", "targets", "weights", "valid")
    }
    x = joined["images"].reshape(len(joined["images"]), -1) / 255.0
    x = (x - job.input.mean[0]) / job.input.std[0]
    share = joined["weights"] * joined["valid"]
    share = (share / share.sum())[:, None]
    wanted = (1 - SMOOTHING) * np.eye(10)[joined["targets"]] + SMOOTHING / 10
    hidden = np.tanh(x @ net.body.weight.detach().double().numpy().T)
    total, heads, back = 0.0, [], np.zeros_like(hidden)
    for head, worth in zip(net.heads, (1.0, WEIGHT, WEIGHT), strict=True):
        matrix = head.weight.detach().double().numpy()
        logits = hidden @ matrix.T
        odds = np.exp(logits)
        chances = odds / odds.sum(1, keepdims=True)
        total -= worth * (share * wanted * np.log(chances)).sum()
        change = worth * share * (chances - wanted)
        heads.append(change.T @ hidden)
        back += change @ matrix
    return total, [(back * (1 - hidden**2)).T @ x, *heads]


@pytest.mark.parametrize("compiled", [False, True])
def test_loss_and_gradients_are_the_formula(
    digits: Dataset, compiled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weighted samples, some of them padding, in two batches of one step, smoothed targets."""
    # What is compiled is tested, not the compiler, which takes half a minute.
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="eager"))
    torch.manual_seed(0)
    net = Three()
    job = simple(digits, net)
    batches = [
        batch(digits, range(5), [True] * 5),
        batch(digits, range(5, 10), [True, True, False, True, False]),
    ]
    loss, gradients = by_hand(job, net, batches)
    stepped = step(job, batches, compiled=compiled)
    assert stepped.loss.item() == pytest.approx(loss, rel=1e-5)
    for parameter, gradient in zip(net.parameters(), gradients, strict=True):
        assert parameter.grad is not None
        np.testing.assert_allclose(parameter.grad.numpy(), gradient, rtol=1e-4, atol=1e-6)


def test_heads_that_are_off_leave_the_plain_step(digits: Dataset) -> None:
    """`forward_auxiliary` that gives the main outputs alone is `forward`, bit for bit."""
    torch.manual_seed(0)
    net = Three()
    del net.heads[1:]
    plain = nn.Sequential(
        nn.Flatten(), copy.deepcopy(net.body), nn.Tanh(), copy.deepcopy(net.heads[0])
    )
    whole = [batch(digits, range(8), [True] * 8)]
    first, second = step(simple(digits, net), whole), step(simple(digits, plain), whole)
    assert torch.equal(first.loss, second.loss)
    for one, other in zip(net.parameters(), plain.parameters(), strict=True):
        assert one.grad is not None
        assert other.grad is not None
        assert torch.equal(one.grad, other.grad)


def test_a_sample_that_only_an_auxiliary_head_cannot_bear_is_named(digits: Dataset) -> None:
    torch.manual_seed(0)
    net = Three()
    job = simple(digits, net)
    heads = Heads(net)
    whole = batch(digits, range(4), [True] * 4)
    main, first, second = heads.outputs(Normalize(job.input.mean, job.input.std)(whole.images))
    second = second.clone()
    second[2] = math.nan
    losses = heads.losses(job.task, (main, first, second), whole)
    assert losses.isnan().tolist() == [False, False, True, False]


def test_training_asks_for_all_heads_and_evaluation_for_the_main_one(
    digits: Dataset, tmp_path: Path
) -> None:
    job = make(few(digits, 64), {"model_args": {}}, Strict())
    before = {name: value.clone() for name, value in job.network.state_dict().items()}
    outcome, events = run(job, tmp_path)
    assert math.isfinite(events[-2].values["val_loss"])
    for name, value in outcome.weights.items():
        assert not torch.equal(value, before[name]), name


def test_the_tuner_times_and_compares_all_heads(digits: Dataset, tmp_path: Path) -> None:
    asked: list[int] = []

    class Counting(Three):
        def forward_auxiliary(self, x: Tensor) -> tuple[Tensor, ...]:
            asked.append(len(x))
            return super().forward_auxiliary(x)

        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("timed without its auxiliary heads")

    engine = {"epochs": 100_000, "compile": "off"}
    job = make(digits, {"model_args": {}, "engine": engine}, Counting())
    fastest, plain = tuner.seconds_per_picture(job, pictures=16)
    assert 0 < fastest <= plain
    assert set(asked) == {16}
    assert tuner.tune(job, cache=tmp_path).trials


@pytest.mark.parametrize(
    ("precision", "layout"), [("fp32", "contiguous"), ("bf16", "channels_last")]
)
def test_googlenet_trains_its_auxiliary_heads(
    digits: Dataset, tmp_path: Path, precision: str, layout: str
) -> None:
    """One step moves every parameter of the heads; as far as half precision may differ, the same
    loss in it."""
    values: dict[str, Any] = {
        "model": "googlenet",
        "model_args": {"dropout": 0.0, "auxiliary_dropout": 0.0},
        "optim": {"name": "sgd", "lr": 0.1, "weight_decay": 0.0},
        "engine": {"epochs": 1, "batch": 16, "precision": precision, "layout": layout},
        "schedule": {"name": "constant", "warmup": 0},
    }
    data = dataclasses.replace(few(digits, 16), splits={"train": digits.splits["train"][:16]})
    job = make(data, values)
    net = copy.deepcopy(job.network)
    outcome, events = run(job, tmp_path)
    assert outcome.steps == 1
    moved = {
        name
        for name, value in net.named_parameters()
        if not torch.equal(outcome.weights[name], value)
    }
    heads = {name for name, _ in net.named_parameters() if name.startswith(("aux1.", "aux2."))}
    assert len(heads) == 14
    assert heads <= moved

    rows = data.splits["train"]
    images = data.images.gather(rows, data.size)
    losses = [
        nn.functional.cross_entropy(one, data.targets[rows], label_smoothing=smoothing(job)).item()
        for one in net.train().forward_auxiliary(Normalize(job.input.mean, job.input.std)(images))
    ]
    expected = losses[0] + 0.3 * losses[1] + 0.3 * losses[2]
    found = next(event.values["loss"] for event in events if event.kind == "step")
    assert found == pytest.approx(expected, rel=1e-5 if precision == "fp32" else 0.02)


def smoothing(job: Job) -> float:
    return float(job.task.spec.args["label_smoothing"])


@pytest.mark.parametrize("weight", [None, -0.1, math.nan, math.inf, "0.3"])
def test_heads_without_a_weight_are_refused(weight: object) -> None:
    net = Three()
    net.auxiliary_weight = weight  # type: ignore[assignment]
    with pytest.raises(ConfigError, match="`auxiliary_weight` must be a number") as caught:
        Heads(net)
    assert "0.3 is usual" in caught.value.hint


@pytest.mark.parametrize("name", ["googlenet", "inception_v3"])
def test_heads_of_the_catalogue_are_as_wide_as_the_answer(name: str) -> None:
    with torch.device("meta"):
        net = catalog.build(name, channels=3, size=(64, 64), outputs=5, args={})
        outputs = Heads(net).outputs(torch.empty(2, 3, 64, 64))
    assert len(outputs) > 1
    assert {tuple(one.shape) for one in outputs} == {(2, 5)}


@pytest.mark.parametrize("growing", [False, True])
def test_each_size_of_growing_pictures_has_a_graph_of_its_own(
    growing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs: list[list[bool]] = []

    def seen(graph: torch.fx.GraphModule, inputs: list[Any]) -> Any:
        values = [
            node.meta.get("example_value") for node in graph.graph.find_nodes(op="placeholder")
        ]
        (images,) = (one for one in values if isinstance(one, Tensor) and one.shape[1:2] == (5,))
        graphs.append([isinstance(side, torch.SymInt) for side in images.shape])
        return graph.forward

    torch._dynamo.reset()
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=seen))
    net = nn.Sequential(nn.AvgPool2d(3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    heads = Heads(net, compiled=True, growing=growing)
    # As an epoch has them: batches differ by one picture.
    for batch, side in ((6, 16), (7, 16), (6, 24), (7, 24), (7, 32), (6, 32)):
        images = torch.rand(batch, 5, side, side)
        torch.testing.assert_close(heads.outputs(images)[0], net(images))
    whole, any_batch = [False] * 4, [True, False, False, False]
    expected = (
        [whole, *[any_batch] * 3] if growing else [whole, any_batch, [True, False, True, True]]
    )
    assert graphs == expected
    torch._dynamo.reset()
