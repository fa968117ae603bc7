"""Losses against NumPy written from the formulas, gradients against finite differences."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from neocog.records import Batch
from neocog.tasks.classify import Classify
from neocog.tasks.multilabel import Multilabel
from neocog.tasks.regress import Regress

NAMES = ("a", "b", "c", "d")


def batch(targets: torch.Tensor, valid: torch.Tensor | None = None) -> Batch:
    n = len(targets)
    return Batch(
        images=torch.zeros(n, 1, 1, 1, dtype=torch.uint8),
        targets=targets,
        weights=torch.ones(n),
        valid=torch.ones(n, dtype=torch.bool) if valid is None else valid,
        ids=torch.arange(n),
    )


def draw(rows: int = 7, columns: int = 4, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Logits and class indices."""
    random = np.random.default_rng(seed)
    return random.normal(size=(rows, columns)) * 3, random.integers(0, columns, rows)


def cross_entropy(
    logits: np.ndarray,
    shares: np.ndarray,
    smoothing: float = 0.0,
    weights: np.ndarray | None = None,
) -> np.ndarray:
    """−Σ_c w_c t_c log p_c, with t smoothed, one sample and one class after the other."""
    rows, columns = logits.shape
    result = np.zeros(rows)
    for i in range(rows):
        total = sum(math.exp(one) for one in logits[i])
        for c in range(columns):
            target = (1 - smoothing) * shares[i, c] + smoothing / columns
            weight = 1.0 if weights is None else weights[c]
            result[i] -= weight * target * math.log(math.exp(logits[i, c]) / total)
    return result


def binary_cross_entropy(logits: np.ndarray, targets: np.ndarray) -> np.ndarray:
    """−(t log p + (1 − t) log(1 − p)), averaged over labels."""
    p = 1 / (1 + np.exp(-logits))
    return -(targets * np.log(p) + (1 - targets) * np.log(1 - p)).mean(axis=1)


def huber(d: float, delta: float) -> float:
    return d * d / 2 if abs(d) <= delta else delta * (abs(d) - delta / 2)


# ---------------------------------------------------------------------------------- classify


def test_cross_entropy_by_hand() -> None:
    # p = (1/2, 1/4, 1/4): −log 1/4 = 2 log 2.
    logits = torch.log(torch.tensor([[0.5, 0.25, 0.25]]))
    task = Classify(classes=("a", "b", "c"))
    assert task.loss(logits, batch(torch.tensor([1]))).item() == pytest.approx(2 * math.log(2))


@given(seed=st.integers(0, 10_000), smoothing=st.floats(0, 0.99), weighted=st.booleans())
@settings(deadline=None, max_examples=25)
def test_cross_entropy_is_the_formula(seed: int, smoothing: float, weighted: bool) -> None:
    logits, truth = draw(seed=seed)
    weights = np.random.default_rng(seed).uniform(0, 3, 4).round(3) if weighted else None
    task = Classify(
        classes=NAMES,
        label_smoothing=smoothing,
        class_weights=None if weights is None else weights.tolist(),
    )
    ours = task.loss(torch.tensor(logits), batch(torch.tensor(truth)), training=True).numpy()
    # Weights are kept in float32.
    np.testing.assert_allclose(
        ours, cross_entropy(logits, np.eye(4)[truth], smoothing, weights), rtol=1e-6
    )


def test_mixed_targets_are_shares_of_classes() -> None:
    logits, _ = draw()
    shares = np.random.default_rng(1).dirichlet(np.ones(4), size=7)
    task = Classify(classes=NAMES, label_smoothing=0.1, class_weights=[1.0, 2.0, 0.5, 0.25])
    ours = task.loss(torch.tensor(logits), batch(torch.tensor(shares)), training=True).numpy()
    theirs = cross_entropy(logits, shares, 0.1, np.array([1.0, 2.0, 0.5, 0.25]))
    np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_one_hot_targets_say_the_same_as_indices() -> None:
    logits, truth = draw()
    task = Classify(classes=NAMES, label_smoothing=0.2, class_weights=[1.0, 2.0, 3.0, 4.0])
    by_index = task.loss(torch.tensor(logits), batch(torch.tensor(truth)), training=True)
    hot = F.one_hot(torch.tensor(truth), 4).float()
    by_share = task.loss(torch.tensor(logits), batch(hot), training=True)
    torch.testing.assert_close(by_index, by_share)


def test_smoothing_and_weights_apply_in_training_only() -> None:
    logits, truth = draw()
    plain = Classify(classes=NAMES)
    fancy = Classify(classes=NAMES, label_smoothing=0.3, class_weights=[5.0, 1.0, 1.0, 0.1])
    one = batch(torch.tensor(truth))
    torch.testing.assert_close(
        fancy.loss(torch.tensor(logits), one), plain.loss(torch.tensor(logits), one)
    )
    assert not torch.allclose(
        fancy.loss(torch.tensor(logits), one, training=True), plain.loss(torch.tensor(logits), one)
    )


@pytest.mark.parametrize("training", [False, True])
def test_padding_may_hold_an_index_that_does_not_exist(training: bool) -> None:
    logits, truth = draw()
    valid = torch.tensor([True] * 5 + [False] * 2)
    bad = torch.tensor(truth).clone()
    bad[5], bad[6] = -1, 99
    task = Classify(classes=NAMES)
    ours = task.loss(torch.tensor(logits), batch(bad, valid), training=training)
    assert torch.isfinite(ours).all()
    np.testing.assert_allclose(
        ours[:5].numpy(), cross_entropy(logits[:5], np.eye(4)[truth[:5]]), rtol=1e-9
    )


def test_half_precision_outputs_are_judged_in_float32() -> None:
    logits = torch.tensor([[4.0, 0.0]], dtype=torch.bfloat16)
    loss = Classify(classes=("a", "b")).loss(logits, batch(torch.tensor([0])))
    assert loss.dtype == torch.float32
    # bfloat16 itself is off by up to 0.4 %.
    assert loss.item() == pytest.approx(math.log1p(math.exp(-4)), rel=1e-5)
    assert Classify(classes=("a", "b")).decode(logits).dtype == torch.float32


def test_large_logits_stay_finite() -> None:
    task = Classify(classes=("a", "b"))
    loss = task.loss(torch.tensor([[1e4, -1e4]]), batch(torch.tensor([1])))
    assert loss.item() == pytest.approx(2e4)
    many = Multilabel(classes=("a", "b"))
    loss = many.loss(torch.tensor([[1e4, -1e4]]), batch(torch.tensor([[0.0, 1.0]])))
    assert loss.item() == pytest.approx(1e4)


# -------------------------------------------------------------------------------- multilabel


def test_binary_cross_entropy_by_hand() -> None:
    # p = 3/4 for a label that holds, p = 1/2 for one that does not.
    logits = torch.tensor([[math.log(3), 0.0]])
    loss = Multilabel(classes=("a", "b")).loss(logits, batch(torch.tensor([[1.0, 0.0]])))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


@given(seed=st.integers(0, 10_000), smoothing=st.floats(0, 0.99))
@settings(deadline=None, max_examples=25)
def test_binary_cross_entropy_is_the_formula(seed: int, smoothing: float) -> None:
    logits, _ = draw(seed=seed)
    targets = np.random.default_rng(seed).integers(0, 2, logits.shape).astype(float)
    task = Multilabel(classes=NAMES, label_smoothing=smoothing)
    one = batch(torch.tensor(targets))
    np.testing.assert_allclose(
        task.loss(torch.tensor(logits), one).numpy(), binary_cross_entropy(logits, targets)
    )
    smoothed = targets * (1 - smoothing) + smoothing / 2
    np.testing.assert_allclose(
        task.loss(torch.tensor(logits), one, training=True).numpy(),
        binary_cross_entropy(logits, smoothed),
    )


# ----------------------------------------------------------------------------------- regress


@given(seed=st.integers(0, 10_000), delta=st.floats(0.1, 3))
@settings(deadline=None, max_examples=25)
def test_number_losses_are_the_formulas(seed: int, delta: float) -> None:
    random = np.random.default_rng(seed)
    z, targets = random.normal(size=(6, 2)), random.normal(size=(6, 2)) * [10, 0.1] + [50, -3]
    mean, std = np.array([50.0, -3.0]), np.array([10.0, 0.1])
    d = z - (targets - mean) / std
    expected = {
        "squared": (d**2).mean(axis=1),
        "absolute": np.abs(d).mean(axis=1),
        "huber": np.vectorize(huber)(d, delta).mean(axis=1),
    }
    for kind, values in expected.items():
        task = Regress(
            columns=("x", "y"), mean=mean.tolist(), std=std.tolist(), kind=kind, delta=delta
        )
        ours = task.loss(torch.tensor(z), batch(torch.tensor(targets))).numpy()
        np.testing.assert_allclose(ours, values, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(task.decode(torch.tensor(z)).numpy(), z * std + mean)


def test_zero_loss_where_the_decoded_number_is_the_target() -> None:
    task = Regress(columns=("x",), mean=[1990.0], std=[8.0], kind="absolute")
    z = torch.tensor([[0.5], [-1.25]])
    losses = task.loss(z, batch(task.decode(z)))
    torch.testing.assert_close(losses, torch.zeros(2))


def test_classes_that_stand_for_numbers() -> None:
    task = Regress(columns=("value",), mean=[2.0], std=[2.0], values=[0.5, 2.0, 8.0])
    z = torch.tensor([[0.0], [0.0], [1.0]], dtype=torch.float64)
    valid = torch.tensor([True, True, False])
    losses = task.loss(z, batch(torch.tensor([2, 0, -1]), valid))
    np.testing.assert_allclose(losses[:2].numpy(), [9.0, 0.5625])
    # Half of class 0 and half of class 2 is 4.25.
    shares = torch.tensor([[0.5, 0.0, 0.5]])
    mixed = task.loss(z[:1], batch(shares))
    assert mixed.item() == pytest.approx(((4.25 - 2) / 2) ** 2)


# --------------------------------------------------------------------------------- gradients


def slopes(task: object, outputs: np.ndarray, one: Batch) -> np.ndarray:
    """Central differences of the summed training loss."""

    def total(values: np.ndarray) -> float:
        return float(task.loss(torch.tensor(values), one, training=True).sum())  # type: ignore[attr-defined]

    result = np.zeros_like(outputs)
    for place in np.ndindex(outputs.shape):
        step = np.zeros_like(outputs)
        step[place] = 1e-5
        result[place] = (total(outputs + step) - total(outputs - step)) / 2e-5
    return result


@pytest.mark.parametrize(
    "task",
    [
        Classify(classes=NAMES, label_smoothing=0.1, class_weights=[1.0, 2.0, 3.0, 0.5]),
        Multilabel(classes=NAMES, label_smoothing=0.1),
        Regress(columns=NAMES, mean=[0.0] * 4, std=[2.0] * 4),
        Regress(columns=NAMES, mean=[0.0] * 4, std=[2.0] * 4, kind="absolute"),
        Regress(columns=NAMES, mean=[0.0] * 4, std=[2.0] * 4, kind="huber", delta=0.7),
    ],
    ids=["classify", "multilabel", "squared", "absolute", "huber"],
)
def test_gradients(task: object) -> None:
    outputs, truth = draw(rows=5)
    if isinstance(task, Classify):
        targets = torch.tensor(truth)
    elif isinstance(task, Multilabel):
        targets = torch.tensor(np.eye(4)[truth])
    else:
        targets = torch.tensor(np.random.default_rng(5).normal(size=(5, 4)))
    one = batch(targets)
    variable = torch.tensor(outputs, requires_grad=True)
    task.loss(variable, one, training=True).sum().backward()  # type: ignore[attr-defined]
    assert variable.grad is not None
    np.testing.assert_allclose(variable.grad.numpy(), slopes(task, outputs, one), atol=1e-6)


def test_cross_entropy_gradient_is_softmax_minus_target() -> None:
    logits, truth = draw()
    variable = torch.tensor(logits, requires_grad=True)
    Classify(classes=NAMES).loss(
        variable, batch(torch.tensor(truth)), training=True
    ).sum().backward()
    p = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert variable.grad is not None
    np.testing.assert_allclose(variable.grad.numpy(), p - np.eye(4)[truth], atol=1e-12)
