"""A data set on the device: the same bytes as on the host, and nothing that waits for them."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from neocog.config import AugmentRecipe, DataRecipe
from neocog.data import resident as module
from neocog.data.augment import Augment, resolve
from neocog.data.batches import eval_batches, order, train_batches
from neocog.data.dataset import Dataset
from neocog.data.images import Images
from neocog.data.resident import ResidentImages, resident
from neocog.records import Batch, DataCount

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CPU = torch.device("cpu")
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

SHAPES = {
    "whole": [(16, 16)],  # stored as the network takes them
    "larger": [(20, 19)],  # one size, cropped
    "ragged": [(16, 18), (19, 16), (16, 16), (30, 17)],
}
RECIPES = {
    "none": None,
    "usual": AugmentRecipe(),
    "colour": AugmentRecipe(brightness=0.2, contrast=0.2, color=0.1, noise=0.05, blur=0.5),
    "cutout": AugmentRecipe(cutout=0.3),
    "turned": AugmentRecipe(rotate=10.0, scale=0.1),
    "alternate": AugmentRecipe(flip=0.5, alternate=True),
    "mixed": AugmentRecipe(mixup=0.4, cutmix=0.5),
}


def images_of(sizes: list[tuple[int, int]], channels: int = 3, seed: int = 0) -> Images:
    table = np.array(sizes, dtype=np.int64)
    total = int(table.prod(1).sum()) * channels
    pixels = np.random.default_rng(seed).integers(0, 256, total, dtype=np.uint8)
    return Images(pixels, table, channels)


def data_of(count: int, shapes: str) -> Dataset:
    """Noise in colour; ids 5 … count − 1 are the training part."""
    every = DataCount(found=count, used=count, skipped=0)
    return Dataset(
        images=images_of([SHAPES[shapes][i % len(SHAPES[shapes])] for i in range(count)]),
        targets=torch.arange(count) % 2,
        weights=torch.arange(count) / count,
        kind="class",
        classes=("cat", "dog"),
        splits={"train": torch.arange(5, count), "val": torch.arange(5)},
        names=[str(i) for i in range(count)],
        size=(16, 16),
        channels=3,
        fingerprint="",
        source="noise",
        counts={"all": every},
        faults=(),
        duplicates={},
        notes=(),
        seconds=0.0,
        recipe=DataRecipe(source="noise"),
        seed=0,
    )


def augment_of(recipe: AugmentRecipe | None, data: Dataset) -> Augment | None:
    if recipe is None:
        return None
    facts: dict[str, Any] = {"channels": 3, "size": data.size, "classes": data.classes}
    resolved = resolve(recipe, kind="class", uniform=data.images.uniform, **facts)
    return Augment(resolved, seed=1, classes=2, kind="class", mean=(0.5, 0.4, 0.3))


def epoch_of(data: Dataset, device: Any, recipe: str, start: int = 0) -> Iterator[Batch]:
    augment = augment_of(RECIPES[recipe], data)
    return train_batches(
        data, batch=8, seed=1, epoch=2, augment=augment, start=start, device=device
    )


def same(one: Batch, other: Batch) -> bool:
    return all(
        getattr(one, name).dtype == getattr(other, name).dtype
        and torch.equal(getattr(one, name), getattr(other, name).cpu())
        for name in Batch.__slots__
    )


# -- gather -----------------------------------------------------------------------------------

SIZES = st.lists(st.tuples(st.integers(4, 12), st.integers(5, 12)), min_size=1, max_size=6)


@settings(deadline=None, max_examples=100)
@given(SIZES, st.booleans(), st.sampled_from([1, 3]), st.integers(0, 99), st.data())
def test_gather_is_that_of_the_host(
    sizes: list[tuple[int, int]], alike: bool, channels: int, seed: int, data: st.DataObject
) -> None:
    sizes = sizes[:1] * len(sizes) if alike else sizes
    host = images_of(sizes, channels, seed)
    there = ResidentImages(host, CPU)
    lowest, narrowest = (min(side) for side in zip(*sizes, strict=True))
    size = data.draw(st.tuples(st.integers(1, lowest), st.integers(1, narrowest)))
    if alike and data.draw(st.booleans()):
        size = sizes[0]
    rows = data.draw(st.lists(st.integers(0, len(sizes) - 1), max_size=8))
    tops = [data.draw(st.integers(0, sizes[row][0] - size[0])) for row in rows]
    lefts = [data.draw(st.integers(0, sizes[row][1] - size[1])) for row in rows]
    ids, top, left = (torch.tensor(one, dtype=torch.int64) for one in (rows, tops, lefts))
    for corner in ((None, None), (top, left), (top, None), (None, left)):
        expected, got = host.gather(ids, size, *corner), there.gather(ids, size, *corner)
        assert got.dtype == torch.uint8
        assert torch.equal(got, expected)
        assert got.permute(0, 2, 3, 1).is_contiguous()
    assert torch.equal(there.sizes, host.sizes)
    assert len(there) == len(host)
    assert all(np.array_equal(there.picture(row), host.picture(row)) for row in rows)


def test_what_is_on_the_host_is_checked_there() -> None:
    there = ResidentImages(images_of([(6, 5), (8, 7)], 1), CPU)
    assert there.ready(torch.tensor([1, 0, 1]), (6, 5)).tolist() == [1, 0, 1]
    for ids in ([2], [-1]):
        with pytest.raises(IndexError, match="0…1"):
            there.gather(torch.tensor(ids), (2, 2))
        with pytest.raises(IndexError, match="0…1"):
            there.ready(torch.tensor(ids), (2, 2))
    for call in (there.gather, there.ready):
        with pytest.raises(ValueError, match="inside picture 0"):
            call(torch.tensor([1, 0]), (7, 5))
    with pytest.raises(ValueError, match="row 5"):
        there.gather(torch.tensor([0]), (2, 2), torch.tensor([5]), torch.tensor([0]))


def test_an_epoch_is_refused_before_its_first_batch() -> None:
    data = module._moved(data_of(20, "ragged"), CPU)
    with pytest.raises(IndexError, match="0…19"):
        eval_batches(data, torch.tensor([20]), batch=8)


# -- resident ---------------------------------------------------------------------------------


def test_what_does_not_fit_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(50, "ragged")
    device = torch.device("cuda", 0)
    sizes = [SHAPES["ragged"][i % 4] for i in range(50)]
    needed = sum(3 * height * width for height, width in sizes) + 50 * (8 + 4)
    moved: list[Dataset] = []
    monkeypatch.setattr(module, "_moved", lambda data, device: moved.append(data) or data)
    for free, share, fits in (
        (2 * needed, 0.5, True),
        (2 * needed - 2, 0.5, False),
        (needed, 1.0, True),
        (10 * needed, 0.05, False),
    ):
        moved.clear()
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda of, free=free: (free, 2**40))
        assert resident(data, device, share=share) is data
        assert bool(moved) == fits


@pytest.mark.parametrize("name", ["cpu", "mps", "meta"])
def test_only_a_cuda_device_holds_data(name: str) -> None:
    data = data_of(9, "whole")
    assert resident(data, torch.device(name)) is data


# -- batches ----------------------------------------------------------------------------------


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shapes", SHAPES)
def test_batches_are_those_of_the_host(shapes: str, recipe: str) -> None:
    data = data_of(50, shapes)
    there = module._moved(data, CPU)
    for start in (0, 3):
        pairs = zip(
            epoch_of(data, CPU, recipe, start), epoch_of(there, CPU, recipe, start), strict=True
        )
        assert all(same(*pair) for pair in pairs)
    ids = torch.arange(50).flip(0)[:21]
    for pad in (False, True):
        one, other = (eval_batches(each, ids, batch=8, pad=pad) for each in (data, there))
        assert all(same(*pair) for pair in zip(one, other, strict=True))


@pytest.mark.parametrize("there", [False, True])
def test_larger_pictures_of_one_size_are_cropped_at_random(there: bool) -> None:
    data = data_of(50, "larger")
    augment = augment_of(AugmentRecipe(flip=0, shift=0, scale=0, padding="zero"), data)
    shown = module._moved(data, CPU) if there else data
    corners = set()
    for epoch in range(6):
        for one in train_batches(shown, batch=8, seed=1, epoch=epoch, augment=augment):
            for i, picture in zip(one.ids.tolist(), one.images.numpy(), strict=True):
                every = np.lib.stride_tricks.sliding_window_view(
                    data.images.picture(i), (16, 16), axis=(0, 1)
                )
                (corner,) = np.argwhere((every == picture).all((2, 3, 4))).tolist()
                corners.add(tuple(corner))
    assert corners == {(top, left) for top in range(5) for left in range(4)}


class _Copies(TorchDispatchMode):
    """Refuses operations that take from one device to another."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        leaves = tree_leaves((args, kwargs, result))
        devices = {one.device.type for one in leaves if isinstance(one, torch.Tensor)}
        assert len(devices) < 2, f"{func} goes from one device to another"
        return result


class _Literals(TorchFunctionMode):
    """Refuses tensors of Python numbers, which reach a device from memory that is not pinned."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        literal = func in (torch.tensor, torch.as_tensor, torch.Tensor.new_tensor)
        assert not literal, f"{func} goes from one device to another"
        return func(*args, **(kwargs or {}))


@contextlib.contextmanager
def no_waiting() -> Iterator[None]:
    """Refuses what would make the host wait for a device, as far as the meta device shows it.

    Meta tensors have no values: whatever would read one raises by itself.
    """
    with _Copies(), _Literals():
        yield


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: torch.tensor([1.0, 2.0], device="meta"),
        lambda: torch.ones(3, device="meta").new_tensor([1.0]),
        lambda: torch.arange(3).to("meta"),
        lambda: torch.ones(3, device="meta")[torch.arange(2)],
    ],
)
def test_a_copy_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises(AssertionError, match="one device to another"), no_waiting():
        wrong()


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: torch.ones(3, device="meta").tolist(),
        lambda: bool(torch.ones(3, device="meta").all()),
        lambda: torch.ones(3, device="meta").nonzero(),
        lambda: torch.ones(3, device="meta").cpu(),
    ],
)
def test_reading_a_value_is_refused(wrong: Callable[[], object]) -> None:
    with pytest.raises((RuntimeError, AssertionError)), no_waiting():
        wrong()


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shapes", SHAPES)
def test_no_batch_of_an_epoch_waits(shapes: str, recipe: str) -> None:
    data = module._moved(data_of(50, shapes), torch.device("meta"))
    epoch = epoch_of(data, "meta", recipe)
    evaluation = eval_batches(data, torch.arange(21), batch=8, pad=True, device="meta")
    with no_waiting():
        shown = [*epoch, *evaluation]
    assert [len(one.ids) for one in shown] == [7, 8, 7, 8, 7, 8, 8, 8, 8]
    for one in shown:
        assert one.images.shape == (len(one.ids), 3, 16, 16)
        assert {getattr(one, name).device.type for name in Batch.__slots__} == {"meta"}


def test_batches_for_another_device_are_gathered_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    data = data_of(50, "ragged")
    expected = order(data.splits["train"], seed=1, epoch=2)
    begun = threading.Barrier(2, timeout=10)
    seen: list[torch.Tensor] = []
    monkeypatch.setattr("neocog.data.batches.TOGETHER", 1)
    gather = Images.gather

    def spy(self: Images, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        assert threading.current_thread().name.startswith("neocog-ahead")
        seen.append(ids)
        if len(seen) == 3:
            begun.wait()  # the third is gathered while the caller still has the first
        return gather(self, ids, *rest)

    monkeypatch.setattr(Images, "gather", spy)
    epoch = epoch_of(data, "meta", "usual")
    first = next(epoch)
    begun.wait()
    assert first.images.is_meta
    assert len(seen) == 3
    assert [len(one.ids) for one in epoch] == [8, 7, 8, 7, 8]
    assert torch.equal(torch.cat(seen), expected)
    del epoch
    assert "neocog-ahead" not in "".join(one.name for one in threading.enumerate())


@pytest.mark.gpu
@cuda
@pytest.mark.parametrize("recipe", ["none", "usual", "alternate"])
@pytest.mark.parametrize("shapes", SHAPES)
def test_batches_on_cuda_are_those_of_the_host(shapes: str, recipe: str) -> None:
    data = data_of(50, shapes)
    there = resident(data, torch.device("cuda"))
    assert there.targets.is_cuda
    for one, far, near in zip(
        epoch_of(data, CPU, recipe),
        epoch_of(data, "cuda", recipe),
        epoch_of(there, "cuda", recipe),
        strict=True,
    ):
        assert near.images.is_cuda
        assert same(one, far)
        assert same(one, near)
    ids = torch.arange(50).flip(0)[:21]
    here = eval_batches(data, ids, batch=8, pad=True)
    for pair in zip(here, eval_batches(there, ids, batch=8, pad=True, device="cuda"), strict=True):
        assert same(*pair)


@pytest.mark.gpu
@cuda
@pytest.mark.filterwarnings("ignore:Synchronization debug mode")
@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("shapes", SHAPES)
def test_no_epoch_waits_for_cuda(shapes: str, recipe: str) -> None:
    data = resident(data_of(50, shapes), torch.device("cuda"))
    torch.cuda.set_sync_debug_mode("error")
    try:
        shown = list(epoch_of(data, "cuda", recipe))
        shown += eval_batches(data, torch.arange(21), batch=8, pad=True, device="cuda")
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(one.images.is_cuda for one in shown)
