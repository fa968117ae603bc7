"""Batches: an order that is a function, epochs that resume anywhere, evaluation that skips none."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neocog.config import AugmentRecipe
from neocog.data.augment import Augment, resolve
from neocog.data.batches import batches_per_epoch, eval_batches, order, train_batches
from neocog.data.images import Images
from neocog.records import Batch


def data_of(count: int, *, ragged: bool = False) -> Any:
    """Colour pictures that carry their own id in every pixel's first byte, row and column in the
    others; ids 5 … count − 1 are the training part."""
    shapes = [(16, 18), (19, 16), (16, 16)] if ragged else [(16, 16)]
    stored = []
    for i in range(count):
        rows, columns = np.mgrid[: shapes[i % len(shapes)][0], : shapes[i % len(shapes)][1]]
        stored.append(np.stack([np.full_like(rows, i), rows, columns], 2).astype(np.uint8))
    sizes = np.array([one.shape[:2] for one in stored], dtype=np.int64)
    return SimpleNamespace(
        images=Images(np.concatenate([one.ravel() for one in stored]), sizes, 3),
        targets=torch.arange(count) % 7,
        weights=torch.arange(count) / count,
        splits={"train": torch.arange(5, count)},
        size=(16, 16),
        masks=None,
        whole=False,
    )


def augment_of(recipe: AugmentRecipe | None = None, *, uniform: bool = True) -> Augment:
    facts: dict[str, Any] = {"channels": 3, "size": (16, 16), "kind": "class", "uniform": uniform}
    resolved = resolve(recipe or AugmentRecipe(), classes=("cat", "dog"), **facts)
    return Augment(resolved, seed=1, classes=7, kind="class", mean=(0.5, 0.5, 0.5))


def same(one: Batch, other: Batch) -> bool:
    return all(torch.equal(getattr(one, name), getattr(other, name)) for name in Batch.__slots__)


@settings(deadline=None)
@given(
    st.sets(st.integers(0, 2**32 - 1), max_size=60), st.integers(), st.integers(0, 99), st.randoms()
)
def test_order_is_a_permutation_that_ignores_the_order_it_gets(
    chosen: set[int], seed: int, epoch: int, random: Any
) -> None:
    ids = sorted(chosen)
    result = order(torch.tensor(ids, dtype=torch.int64), seed=seed, epoch=epoch)
    assert sorted(result.tolist()) == ids
    mixed = torch.tensor(random.sample(ids, len(ids)), dtype=torch.int64)
    assert torch.equal(order(mixed, seed=seed, epoch=epoch), result)


def test_orders_of_epochs_and_seeds_have_nothing_in_common() -> None:
    ids = torch.arange(5000)
    orders = [order(ids, seed=s, epoch=e) for s, e in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    for i, one in enumerate([ids, *orders]):
        for other in orders[i:]:
            assert abs(stats.spearmanr(one.numpy(), other.numpy()).statistic) < 0.06


def test_every_small_order_is_as_likely() -> None:
    ids = torch.arange(4)
    counts: dict[tuple[int, ...], int] = {}
    for epoch in range(2400):
        found = tuple(order(ids, seed=0, epoch=epoch).tolist())
        counts[found] = counts.get(found, 0) + 1
    assert len(counts) == 24
    assert stats.chisquare(list(counts.values())).pvalue > 1e-3


@settings(deadline=None)
@given(st.integers(0, 500), st.integers(1, 200))
def test_batches_per_epoch(n: int, batch: int) -> None:
    assert batches_per_epoch(n, batch) == len(range(0, n, batch))


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 70), st.integers(1, 80), st.integers(0, 3), st.data())
def test_an_epoch_leaves_nothing_out(n: int, batch: int, epoch: int, draw: st.DataObject) -> None:
    """Every id once, as few batches as will do, none larger than asked, all of nearly one size."""
    data = data_of(n + 5)
    arguments: dict[str, Any] = {"batch": batch, "seed": 1, "epoch": epoch, "augment": None}
    shown = list(train_batches(data, **arguments))
    sizes = [len(one.ids) for one in shown]
    assert sorted(torch.cat([torch.tensor([]), *(one.ids for one in shown)]).tolist()) == list(
        range(5, n + 5)
    )
    assert len(sizes) == len(range(0, n, batch))
    assert max(sizes, default=0) <= batch
    assert max(sizes, default=0) - min(sizes, default=0) <= 1
    start = draw.draw(st.integers(0, len(shown)))
    rest = list(train_batches(data, start=start, **arguments))
    assert all(same(*pair) for pair in zip(rest, shown[start:], strict=True))


def test_sixty_samples_at_batch_32_are_two_batches_of_30() -> None:
    shown = train_batches(data_of(65), batch=32, seed=0, epoch=0, augment=None)
    assert [len(one.ids) for one in shown] == [30, 30]


@pytest.mark.parametrize("ragged", [False, True])
def test_an_epoch_shows_the_training_part_in_order(ragged: bool) -> None:
    data = data_of(50, ragged=ragged)
    shown = list(train_batches(data, batch=8, seed=1, epoch=3, augment=None))
    assert [len(one.ids) for one in shown] == [7, 8, 7, 8, 7, 8]
    ids = torch.cat([one.ids for one in shown])
    assert torch.equal(ids, order(data.splits["train"], seed=1, epoch=3))
    for one in shown:
        assert one.images.shape == (len(one.ids), 3, 16, 16)
        assert one.images.dtype == torch.uint8
        assert torch.equal(one.images[:, 0, 7, 7].long(), one.ids)
        assert torch.equal(one.targets, data.targets[one.ids])
        assert torch.equal(one.weights, data.weights[one.ids])
        assert bool(one.valid.all())


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("mixed", [False, True])
def test_an_epoch_taken_up_in_the_middle_goes_on_alike(ragged: bool, mixed: bool) -> None:
    data = data_of(50, ragged=ragged)
    recipe = AugmentRecipe(rotate=10.0, noise=0.1, mixup=0.5) if mixed else None
    augment = augment_of(recipe, uniform=not ragged)
    arguments: dict[str, Any] = {"batch": 8, "seed": 1, "augment": augment}
    whole = list(train_batches(data, epoch=2, **arguments))
    assert len(whole) == 6
    for start in range(7):
        rest = list(train_batches(data, epoch=2, start=start, **arguments))
        assert len(rest) == 6 - start
        assert all(same(*pair) for pair in zip(rest, whole[start:], strict=True))
    later = list(train_batches(data, epoch=3, **arguments))
    assert not any(same(*pair) for pair in zip(later, whole, strict=True))


def test_the_batch_size_changes_no_picture() -> None:
    data, augment = data_of(50, ragged=True), augment_of(uniform=False)
    seen = []
    for batch in (5, 9):
        shown = train_batches(data, batch=batch, seed=1, epoch=0, augment=augment)
        seen.append({int(i): x for one in shown for i, x in zip(one.ids, one.images, strict=True)})
    assert seen[0].keys() == seen[1].keys() == set(range(5, 50))
    assert all(torch.equal(seen[0][i], seen[1][i]) for i in seen[0])


def test_ragged_pictures_are_cropped_at_random() -> None:
    data = data_of(50, ragged=True)
    still = AugmentRecipe(flip=0, shift=0, scale=0, padding="zero")
    augment = augment_of(still, uniform=False)
    corners = set()
    for epoch in range(12):
        for one in train_batches(data, batch=9, seed=1, epoch=epoch, augment=augment):
            for i, picture in zip(one.ids.tolist(), one.images, strict=True):
                top, left = int(picture[1, 0, 0]), int(picture[2, 0, 0])
                corners.add((i % 3, top, left))
                expected = data.images.picture(i)[top : top + 16, left : left + 16]
                np.testing.assert_array_equal(picture.permute(1, 2, 0).numpy(), expected)
    rows = {(1, top, 0) for top in range(4)}
    assert corners == {(0, 0, left) for left in range(3)} | rows | {(2, 0, 0)}


def test_a_part_smaller_than_a_batch_is_one_batch() -> None:
    data = data_of(9)
    (only,) = train_batches(data, batch=64, seed=0, epoch=0, augment=augment_of())
    assert sorted(only.ids.tolist()) == [5, 6, 7, 8]
    assert list(train_batches(data_of(5), batch=64, seed=0, epoch=0, augment=None)) == []


def test_wrong_arguments_are_refused_at_the_call() -> None:
    data = data_of(50)
    with pytest.raises(ValueError, match="at least 1"):
        train_batches(data, batch=0, seed=0, epoch=0, augment=None)
    with pytest.raises(ValueError, match="0…6"):
        train_batches(data, batch=8, seed=0, epoch=0, augment=None, start=7)
    with pytest.raises(ValueError, match="at least 1"):
        eval_batches(data, torch.arange(3), batch=0)


@pytest.mark.parametrize("ragged", [False, True])
@pytest.mark.parametrize("pad", [False, True])
@pytest.mark.parametrize("count", [0, 1, 7, 8, 9, 20])
def test_evaluation_counts_each_sample_once(ragged: bool, pad: bool, count: int) -> None:
    data = data_of(50, ragged=ragged)
    ids = torch.arange(50).flip(0)[:count]
    shown = list(eval_batches(data, ids, batch=8, pad=pad))
    rows = [8] * (-(-count // 8) if pad else count // 8)
    rows += [count % 8] if count % 8 and not pad else []
    for name in Batch.__slots__:
        assert [len(getattr(one, name)) for one in shown] == rows
    assert pad or all(bool(one.valid.all()) for one in shown)
    valid = [one.ids[one.valid] for one in shown]
    assert torch.equal(torch.cat([ids[:0], *valid]), ids)
    for one in shown:
        assert one.images.dtype == torch.uint8
        assert bool((one.ids[~one.valid] == ids[-1]).all())
        for i, picture in zip(one.ids.tolist(), one.images, strict=True):
            stored = data.images.picture(i)
            top, left = (stored.shape[0] - 16) // 2, (stored.shape[1] - 16) // 2
            expected = stored[top : top + 16, left : left + 16]
            np.testing.assert_array_equal(picture.permute(1, 2, 0).numpy(), expected)
        assert torch.equal(one.targets, data.targets[one.ids])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batches_arrive_on_a_cuda_device() -> None:
    data, augment = data_of(50), augment_of()
    here = train_batches(data, batch=8, seed=1, epoch=0, augment=augment)
    there = train_batches(data, batch=8, seed=1, epoch=0, augment=augment, device="cuda")
    for one, other in zip(here, there, strict=True):
        assert other.images.is_cuda
        assert same(one, Batch(**{name: getattr(other, name).cpu() for name in Batch.__slots__}))


def test_weights_follow_a_mixed_batch() -> None:
    data = data_of(50)
    data.weights = torch.full((50,), 2.0)
    augment = augment_of(AugmentRecipe(mixup=1.0))
    for one in train_batches(data, batch=9, seed=0, epoch=0, augment=augment):
        assert one.targets.shape == (9, 7)
        assert torch.allclose(one.weights, torch.full((9,), 2.0))


def test_small_batches_are_made_together_and_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also with mixup, whose partners come from the batch itself."""
    recipe = AugmentRecipe(flip=0.5, shift=0.1, brightness=0.2, mixup=0.4, cutmix=1.0)
    data = data_of(255)
    arguments: dict[str, Any] = {"batch": 16, "seed": 3, "epoch": 1, "augment": augment_of(recipe)}
    together = list(train_batches(data, **arguments))
    calls = []
    gather = type(data.images).gather
    monkeypatch.setattr(type(data.images), "gather", lambda *args: calls.append(1) or gather(*args))
    assert len(list(train_batches(data, **arguments))) == len(together) > 5 * len(calls) > 0
    monkeypatch.setattr("neocog.data.batches.TOGETHER", 1)
    alone = list(train_batches(data, **arguments))
    assert len(alone) == len(together)
    for one, other in zip(alone, together, strict=True):
        torch.testing.assert_close(one.images, other.images, atol=1e-4, rtol=0)
        assert torch.equal(one.targets, other.targets)
        assert torch.equal(one.ids, other.ids)
