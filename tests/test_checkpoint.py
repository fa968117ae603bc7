"""Checkpoints: whole or absent, exact, and never trusted unverified."""

from __future__ import annotations

import errno
import json
import math
import os
import struct
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from neocog import weights
from neocog.config import OptimRecipe
from neocog.engine import checkpoint, optim
from neocog.engine.averaging import Average
from neocog.errors import ConfigError, RunError
from neocog.records import TrainState
from neocog.weights import header, write

if TYPE_CHECKING:
    from pathlib import Path

RULES = ("sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon")
DTYPES = [
    *(torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64),
    *(torch.int64, torch.uint8, torch.bool),
]


@pytest.fixture(autouse=True)
def _one_thread():
    """Threads that wait for each other cost more than such small tensors do."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def small(step: int = 7, **more: Any) -> TrainState:
    parts = {
        "model": {"w": torch.arange(6.0).reshape(2, 3), "count": torch.tensor(3)},
        "optimizer": {"state": {0: {"step": torch.tensor(7.0)}}, "lr": 0.1, "betas": (0.9, 0.99)},
        "schedule": {"best": None, "scale": 1.0},
        "ema": {"w": torch.ones(2, 3)},
    }
    return TrainState(step=step, **(parts | more))


def same(one: Any, other: Any) -> bool:
    """Equal in value, type, key type, order, dtype and shape; NaN equals NaN."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or one.shape != other.shape:
            return False
        bits = [value.contiguous().reshape(-1).view(torch.uint8) for value in (one, other)]
        return torch.equal(*bits)
    if isinstance(one, dict):
        keys = list(zip(one, other, strict=False))
        return len(one) == len(other) and all(
            type(a) is type(b) and a == b and same(one[a], other[b]) for a, b in keys
        )
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float):
        return struct.pack("d", one) == struct.pack("d", other) or math.isnan(one + other)
    return one == other


@st.composite
def tensors(draw: st.DrawFn) -> torch.Tensor:
    shape = draw(st.lists(st.integers(0, 3), max_size=3))
    made = torch.randn(shape, generator=torch.Generator().manual_seed(draw(st.integers(0, 9))))
    made = (made * 3).to(draw(st.sampled_from(DTYPES)))
    return made.mT if made.dim() >= 2 and draw(st.booleans()) else made


leaves = st.one_of(
    *(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), tensors())
)
keys = st.one_of(st.text(max_size=4), st.integers(-3, 2**70))
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.lists(inner, max_size=3).map(tuple),
        st.dictionaries(keys, inner, max_size=3),
    ),
    max_leaves=12,
)


@settings(deadline=None, max_examples=150)
@given(trees)
def test_flatten_has_an_inverse(value: Any) -> None:
    tree, found = checkpoint.flatten(value, "x")
    tree = json.loads(json.dumps(tree, allow_nan=False))
    assert same(checkpoint.unflatten(tree, found), value)


@settings(deadline=None, max_examples=25)
@given(st.dictionaries(keys, trees, max_size=3))
def test_whatever_flattens_survives_the_disk(tmp_path_factory: Any, value: dict[Any, Any]) -> None:
    folder = tmp_path_factory.mktemp("c")
    path = checkpoint.save(folder, small(optimizer=value), meta={})
    state, _ = checkpoint.load(path)
    assert same(state.optimizer, value)


def test_names_that_spell_the_same_path_stay_apart() -> None:
    value = {"a.b": torch.tensor(1), "a": {"b": torch.tensor(2)}, "a b": torch.tensor(3)}
    value |= {"a_b": torch.tensor(4)}
    tree, found = checkpoint.flatten(value, "x")
    assert len(found) == 4
    assert same(checkpoint.unflatten(tree, found), value)


@pytest.mark.parametrize("bad", [{1, 2}, object(), {(1, 2): 3}, {1.5: 3}, b"bytes"])
def test_other_values_are_refused_by_their_path(bad: Any) -> None:
    with pytest.raises(ConfigError, match=r"optimizer\.deep\.1.*cannot hold"):
        checkpoint.flatten({"deep": [0, bad]}, "optimizer")


def test_a_round_trip_is_exact_and_readable_by_anyone(tmp_path: Path) -> None:
    meta = {"events": 12, "note": "naïve – 学", "nan": math.nan}
    path = checkpoint.save(tmp_path / "new" / "folder", small(), meta=meta)
    assert path.name == "step-00000007.safetensors"
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    state, again = checkpoint.load(path)
    for part in ("step", "model", "optimizer", "schedule", "ema"):
        assert same(getattr(state, part), getattr(small(), part)), part
    assert same(again, meta)
    plain = load_file(path)
    assert torch.equal(plain["model.w"], small().model["w"])
    assert {name.split(".")[0] for name in plain} == {"model", "ema", "optimizer"}


def test_layouts_views_and_tied_weights_keep_their_values(tmp_path: Path) -> None:
    kernel = torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last)
    base = torch.arange(10.0)
    model = {"k": kernel, "tied": kernel, "row": base[2:5], "rest": base[::2], "none": base[:0]}
    state, _ = checkpoint.load(checkpoint.save(tmp_path, small(model=model), meta={}))
    for name, value in model.items():
        assert torch.equal(state.model[name], value), name


def test_a_named_copy_is_no_place_to_resume_from(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, small(9), name="best-0.5", meta={})
    assert checkpoint.load_latest(tmp_path) is None
    for name in ("step-00000009", "a/b", "..", ".hidden", "", "x" * 201, 'say "hi"'):
        with pytest.raises(ConfigError, match=r"cannot name|would pass"):
            checkpoint.save(tmp_path, small(), name=name, meta={})


def test_the_newest_is_the_highest_step_not_the_latest_clock(tmp_path: Path) -> None:
    for step in (100_000_000, 30, 4, 200):
        path = checkpoint.save(tmp_path, small(step), meta={"step": step})
    os.utime(path, (4e9, 4e9))
    (tmp_path / "step-99.safetensors").write_text("not one of ours")
    newest = checkpoint.load_latest(tmp_path)
    assert newest is not None
    assert newest.path.name == "step-100000000.safetensors"
    assert newest.warnings == ()
    (tmp_path / f".{path.name}.1.tmp").write_text("left by a crash")
    gone = checkpoint.prune(tmp_path, keep=2)
    assert {p.name[:13] for p in gone} == {"step-00000030", "step-00000004", ".step-0000020"}
    assert checkpoint.load(tmp_path / "step-00000200.safetensors")[1] == {"step": 200}
    with pytest.raises(ValueError, match="at least 1"):
        checkpoint.prune(tmp_path, keep=0)


def test_every_flipped_byte_is_noticed_or_changes_nothing(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, small(), meta={"a": 1})
    whole = path.read_bytes()
    want = checkpoint.load(path)
    unnoticed, said = 0, set()
    for place in range(len(whole)):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x04]) + whole[place + 1 :])
        try:
            state, meta = checkpoint.load(path)
        except RunError as error:
            said.add("damaged" in str(error) or "no neocog checkpoint" in str(error))
            continue
        unnoticed += 1
        for part in ("step", "model", "optimizer", "schedule", "ema"):
            assert same(getattr(state, part), getattr(want[0], part))
        assert meta == want[1]
    assert unnoticed < 20
    assert said == {True}


def test_every_truncation_is_noticed(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, small(), meta={})
    whole = path.read_bytes()
    for length in [*range(0, len(whole), 7), len(whole) - 1]:
        path.write_bytes(whole[:length])
        with pytest.raises(RunError, match="damaged"):
            checkpoint.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(RunError, match="damaged"):
        checkpoint.load(path)


def test_a_damaged_newest_is_named_and_the_one_before_is_used(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        checkpoint.save(tmp_path, small(step), meta={"step": step})
    newest = tmp_path / "step-00000030.safetensors"
    raw = bytearray(newest.read_bytes())
    raw[-1] ^= 1
    newest.write_bytes(raw)
    found = checkpoint.load_latest(tmp_path)
    assert found is not None
    assert (found.state.step, found.meta, found.path.name[-11:]) == (
        20,
        {"step": 20},
        "safetensors",
    )
    assert len(found.warnings) == 1
    assert "step-00000030.safetensors is damaged" in found.warnings[0]
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(RunError, match=r"no checkpoint in .* can be used") as caught:
        checkpoint.load_latest(tmp_path)
    assert all(f"step-000000{step}" in str(caught.value) for step in (10, 20, 30))


def test_what_is_not_a_checkpoint_is_called_so(tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    save_file(small().model, weights)
    with pytest.raises(RunError, match="no neocog checkpoint"):
        checkpoint.load(weights)
    with pytest.raises(RunError, match=r"cannot read .*missing.*No such file"):
        checkpoint.load(tmp_path / "missing.safetensors")
    with pytest.raises(RunError, match=str(tmp_path)):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": None}, "format"),
        ({"step": "7"}, "step"),
        ({"step": -1}, "step"),
        ({"step": True}, "step"),
        ({"model": None}, "model"),
        ({"model": []}, "model"),
        ({"model": {}}, "damaged"),
        ({"model": {"tensor": "nowhere"}}, "nowhere"),
        ({"model": {"dict": [["w", 3]]}}, "'w'"),
        ({"ema": {"dict": [[["w"], 3]]}}, ""),
        ({"ema": {"dict": [["w"]]}}, ""),
        ({"optimizer": {"set": [1]}}, "'set'"),
        ({"optimizer": {"tensor": ["w"]}}, ""),
        ({"schedule": {"float": "much"}}, "much"),
        ({"schedule": {"tuple": 3}}, ""),
        ({"meta": {"dict": [], "tuple": []}}, ""),
    ],
    ids=str,
)
def test_a_right_digest_of_nonsense_is_damage(
    change: dict[str, Any], words: str, tmp_path: Path
) -> None:
    path = checkpoint.save(tmp_path, small(), meta={"a": 1})
    whole = json.loads(forged(path, None))
    assert checkpoint.load(path)[0].step == 7
    forged(path, json.dumps({**whole, **change}))
    with pytest.raises(RunError, match=r"damaged|format None") as caught:
        checkpoint.load(path)
    assert words in str(caught.value)
    for text in ("[]", "3", "{", "[" * 100_000, json.dumps({**whole, "step": 0})[:-1] + ',"x":1}'):
        forged(path, text)
        if text.endswith('"x":1}'):
            assert checkpoint.load(path)[0].step == 0  # what the forgery can do, it does
        else:
            with pytest.raises(RunError, match="damaged"):
                checkpoint.load(path)


def forged(path: Path, text: str | None) -> str:
    """Another description in a checkpoint, with the digest that belongs to it; what was there."""
    with safe_open(path, "pt") as file:
        before: str = file.metadata()["neocog"]
        held = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if text is not None:
        digest = checkpoint.digest_of(text, held)
        save_file(held, path, {"neocog": text, "sha256": digest})
    return before


def test_as_many_tensors_as_are_written_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A header of more than what strangers may bring."""
    model = {
        f"block.{place:05d}.convolution.weight": torch.tensor([float(place)])
        for place in range(50_000)
    }
    path = checkpoint.save_weights(tmp_path / "w.safetensors", model)
    assert int.from_bytes(path.read_bytes()[:8], "little") > header.LONGEST
    assert same(checkpoint.load_weights(path), model)
    saved = checkpoint.save(tmp_path, replace(small(), model=model), meta={})
    assert checkpoint.load(saved)[0].model.keys() == model.keys()
    with pytest.raises(RunError, match="header length"):
        weights.read(path)
    before = path.read_bytes()
    monkeypatch.setattr(write, "OURS", 2**20)
    with pytest.raises(RunError, match=r"50,000 tensors.* at most 1,048,576"):
        checkpoint.save_weights(path, model)
    assert path.read_bytes() == before


def test_weights_alone_are_plain_and_verified(tmp_path: Path) -> None:
    path = checkpoint.save_weights(tmp_path / "w.safetensors", small().model)
    loaded = checkpoint.load_weights(path)
    assert same({name: loaded[name] for name in small().model}, dict(small().model))
    assert load_file(path).keys() == small().model.keys()
    raw = bytearray(path.read_bytes())
    raw[-2] ^= 16
    path.write_bytes(raw)
    with pytest.raises(RunError, match="SHA-256"):
        checkpoint.load_weights(path)
    save_file(small().model, path)  # anyone's weights
    assert checkpoint.load_weights(path).keys() == small().model.keys()


@pytest.mark.parametrize("culprit", ["open", "write", "fsync", "replace"])
def test_a_full_disk_is_named_and_the_old_file_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, culprit: str
) -> None:
    path = checkpoint.save(tmp_path, small(), meta={"old": True})

    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    expected = r"cannot write .*step-00000007.*needs [\d,]+ bytes \([\d,]+ are free\).*No space"
    with monkeypatch.context() as broken:
        broken.setattr(os, culprit, full)
        with pytest.raises(RunError, match=expected):
            checkpoint.save(tmp_path, small(), meta={"old": False})
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    assert checkpoint.load(path)[1] == {"old": True}


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunError, match=r"cannot write .*file"):
        checkpoint.save(tmp_path / "file", small(), meta={})


class Run:
    """The smallest training with everything that a checkpoint must carry."""

    def __init__(self, rule: str) -> None:
        torch.manual_seed(5)
        self.net = nn.Sequential(
            *(nn.Conv2d(1, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU()),
            *(nn.Conv2d(4, 6, 3), nn.Flatten(), nn.Linear(24, 3)),
        ).to(memory_format=torch.channels_last)
        self.optimizers = optim.build(self.net, OptimRecipe(name=rule))
        self.average = Average(self.net, 0.9)
        self.step = 0

    def train(self, until: int) -> None:
        while self.step < until:
            draw = torch.Generator().manual_seed(self.step)
            self.optimizers.set_lr(0.01 / (1 + self.step))
            self.optimizers.zero_grad()
            self.net(torch.randn(5, 1, 6, 6, generator=draw)).square().mean().backward()
            self.optimizers.step()
            self.average.update(self.net, self.step)
            self.step += 1

    def state(self) -> TrainState:
        return TrainState(
            step=self.step,
            model=self.net.state_dict(),
            optimizer=self.optimizers.state_dict(),
            schedule={},
            ema=self.average.state,
        )

    def load(self, state: TrainState) -> None:
        self.net.load_state_dict(dict(state.model))
        self.optimizers.load_state_dict(state.optimizer)
        self.average.load(state.ema)
        self.step = state.step


@pytest.mark.parametrize("rule", RULES)
def test_training_goes_on_bit_for_bit(rule: str, tmp_path: Path) -> None:
    straight = Run(rule)
    straight.train(3)
    path = checkpoint.save(tmp_path, straight.state(), meta={})
    straight.train(6)
    resumed = Run(rule)
    resumed.load(checkpoint.load(path)[0])
    assert resumed.net[3].weight.is_contiguous(memory_format=torch.channels_last)
    resumed.train(6)
    one, other = straight.state(), resumed.state()
    assert same(dict(one.model), dict(other.model))
    assert same(dict(one.ema), dict(other.ema))
    assert same(dict(one.optimizer), dict(other.optimizer))
