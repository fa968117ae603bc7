"""Weights that others made: the format to the letter, and pickles behind four walls."""

from __future__ import annotations

import ast
import io
import json
import os
import pickle
import random
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from safetensors import SafetensorError
from safetensors.torch import load as library_load
from safetensors.torch import save as library_save

import neocog
from damage import FUZZ, mutated
from neocog import weights
from neocog.cli import cli
from neocog.errors import NeocogError, RunError
from neocog.weights import child, pickled, write
from neocog.weights.header import DTYPES, LONGEST, read_header

HONEST = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor([1, -1], dtype=torch.int16)}
SOURCE = Path(neocog.__file__).parent


def packed(header: Any, body: bytes = b"", length: int | None = None) -> bytes:
    """A safetensors file put together by hand."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + body


def one(**changes: Any) -> dict[str, Any]:
    """The header of one tensor of four float32, with changes; it needs 16 bytes."""
    return {"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16], **changes}}


def two(first: list[int], second: list[int]) -> dict[str, Any]:
    """Two tensors of four float32 each."""
    return {**one(data_offsets=first), "v": one(data_offsets=second)["w"]}


BODY = bytes(16)
BROKEN = {
    "empty": (b"", "0 bytes"),
    "no length": (b"\x10\0\0", "3 bytes"),
    "no header": (bytes(8), "begins with {"),
    "length past the end": (packed(one(), BODY, 500), "header length 500"),
    "length too small": (packed(one(), BODY, 20), "in JSON"),
    "length that takes data along": (packed(one(), BODY, len(packed(one())) - 8 + 4), "in JSON"),
    "huge length": (packed(one(), BODY, 2**64 - 1), "header length 18,446,744,073,709,551,615"),
    "long header": (packed(b"{" + b" " * LONGEST + b"}"), "at most 4,194,304"),
    "no object": (packed(b"[]"), "begins with {"),
    "space before": (packed(b" {}"), "begins with {"),
    "cut JSON": (packed(b'{"w": {'), "in JSON"),
    "not UTF-8": (packed(b'{"\xff": 1}'), "in JSON"),
    "half a surrogate": (
        packed(b'{"\\ud800": ' + json.dumps(one()["w"]).encode() + b"}", BODY),
        "surrogate",
    ),
    "NaN": (packed(b'{"w": NaN}'), "NaN"),
    "infinity": (packed(b'{"w": 1e999}'), "too large"),
    "nesting": (packed(b'{"w":' + b"[" * 200_000 + b"]" * 200_000 + b"}"), "nested too deeply"),
    "the same tensor twice": (
        packed(json.dumps(one()).encode()[:-1] + b"," + json.dumps(one()).encode()[1:], BODY),
        "'w' occurs twice",
    ),
    "the same field twice": (
        packed(b'{"w":{"dtype":"F32","dtype":"F32","shape":[4],"data_offsets":[0,16]}}', BODY),
        "'dtype' occurs twice",
    ),
    "field missing": (packed({"w": {"dtype": "F32", "shape": [4]}}, BODY), "exactly the fields"),
    "field unknown": (packed(one(code="print()"), BODY), "exactly the fields"),
    "tensor is no object": (packed({"w": 3}, BODY), "exactly the fields"),
    "unknown dtype": (packed(one(dtype="F31"), BODY), "'F31'"),
    "dtype is no text": (packed(one(dtype=["F32"]), BODY), "a dtype of"),
    "other dtype": (packed(one(dtype="F64"), BODY), "32 bytes for F64"),
    "other shape": (packed(one(shape=[2, 3]), BODY), "24 bytes"),
    "negative shape": (packed(one(shape=[-4]), BODY), "whole numbers"),
    "two negative sides": (packed(one(shape=[-2, -2]), BODY), "whole numbers"),
    "shape of a float": (packed(one(shape=[4.0]), BODY), "whole numbers"),
    "shape of true": (packed(one(shape=[4, True]), BODY), "whole numbers"),
    "shape past 64 bits": (packed(one(shape=[2**64, 0], data_offsets=[0, 0])), "whole numbers"),
    "product past 64 bits": (packed(one(shape=[2**32, 2**32, 0], data_offsets=[0, 0])), "at most"),
    "offsets backwards": (packed(one(data_offsets=[16, 0]), BODY), "begin and end"),
    "three offsets": (packed(one(data_offsets=[0, 16, 32]), BODY), "begin and end"),
    "negative offset": (packed(one(data_offsets=[-16, 0]), BODY), "begin and end"),
    "overlap": (packed(two([0, 16], [8, 24]), bytes(24)), "an overlap"),
    "the same range twice": (packed(two([0, 16], [0, 16]), BODY), "an overlap"),
    "gap": (packed(two([0, 16], [20, 36]), bytes(36)), "a gap"),
    "gap in front": (packed(one(data_offsets=[4, 20]), bytes(20)), "a gap"),
    "range past the end": (packed(two([0, 16], [16, 32]), BODY), "cut short"),
    "trailing bytes": (packed(one(), BODY + b"\0"), "trailing bytes"),
    "trailing bytes, no tensors": (packed(b"{}", b"\0"), "trailing bytes"),
    "metadata of numbers": (packed({"__metadata__": {"a": 1}, **one()}, BODY), "texts by name"),
    "metadata is no object": (packed({"__metadata__": [], **one()}, BODY), "texts by name"),
}


def library_refuses(content: bytes) -> bool:
    try:
        library_load(content)
    except (SafetensorError, KeyError, RuntimeError, TypeError, OverflowError):
        return True
    return False


@pytest.mark.parametrize("name", BROKEN)
def test_a_malformed_file_is_refused_by_what_is_wrong(name: str, tmp_path: Path) -> None:
    content, words = BROKEN[name]
    path = tmp_path / "w.safetensors"
    path.write_bytes(content)
    with pytest.raises(RunError) as caught:
        weights.read(path)
    assert words in str(caught.value)
    assert str(path) in str(caught.value)
    assert len(str(caught.value)) < 1000


def test_the_battery_holds_what_the_library_refuses_and_more() -> None:
    """Most of the battery is broken in the library's eyes, too: it is no list of our own taste."""
    refused = {name for name, (content, _) in BROKEN.items() if library_refuses(content)}
    stricter = {"field unknown", "long header", "space before", "the same tensor twice"}
    assert set(BROKEN) - refused <= stricter


def test_a_whole_file_is_what_the_library_reads(tmp_path: Path) -> None:
    tensors = {
        name: torch.arange(4).to(getattr(torch, name)).reshape(2, 2) for name, _ in DTYPES.values()
    }
    tensors |= {"none": torch.empty(0, 3), "one": torch.tensor(2.5), "naïve 学\n": torch.ones(1)}
    path = tmp_path / "w.safetensors"
    path.write_bytes(library_save(tensors, metadata={"made": "here"}))
    found = weights.contents(path)
    assert found.kind == "safetensors"
    assert found.metadata == {"made": "here"}
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in library_load(path.read_bytes()).items():
        assert found.tensors[name].dtype == tensors[name].dtype == tensor.dtype
        assert found.tensors[name].tolist() == tensors[name].tolist()
    path.write_bytes(packed(b"{}"))
    assert weights.read(path) == {}
    # The header's length may begin like a pickle.
    text = json.dumps(one()).encode()
    path.write_bytes(packed(text + b" " * (640 - len(text)), BODY))
    assert path.read_bytes()[:2] == b"\x80\x02"
    assert weights.read(path)["w"].tolist() == [0, 0, 0, 0]


def test_the_types_are_those_that_neocog_writes() -> None:
    assert {name: str(dtype) for dtype, name in write.TYPES.items()} == {
        name: f"torch.{words}" for name, (words, _) in DTYPES.items()
    }
    for dtype, name in write.TYPES.items():
        assert DTYPES[name][1] == dtype.itemsize


def judged(content: bytes, path: Path) -> None:
    """Read or refused, never anything else; and never read where the library refuses."""
    path.write_bytes(content)
    refuses = library_refuses(content)
    try:
        read_header(io.BytesIO(content), len(content), "it")
    except RunError:
        with pytest.raises(RunError):
            weights.read(path)
        return
    assert not refuses
    found = weights.read(path)
    expected = library_load(content)
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype
        assert found[name].shape == tensor.shape
        assert write.raw(found[name]) == write.raw(tensor)


@FUZZ
@given(st.integers(0, 2**32))
def test_mutated_bytes_are_read_or_refused(tmp_path: Path, seed: int) -> None:
    content = library_save(HONEST, metadata={"k": "v"})
    judged(mutated(content, seed), tmp_path / "w.safetensors")
    # Without the cuts and the wild bytes: one digit or letter of the header for another.
    chance = random.Random(seed)
    data = bytearray(content)
    place = chance.randrange(8, len(content) - 24)
    data[place] = chance.choice(b'0123456789-.,:[]{}"FIU ')
    judged(bytes(data), tmp_path / "w.safetensors")


numbers = st.one_of(st.integers(-1, 20), st.sampled_from([2**31, 2**63, 2**64, 0.5, None, True]))
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from([*DTYPES, "F4", "F8_E4M3", "f32", "", 4]),
        "shape": st.one_of(st.lists(numbers, max_size=3), st.none()),
        "data_offsets": st.lists(numbers, max_size=3),
        "more": st.none(),
    },
)
names = st.one_of(st.sampled_from(["a", "b", "__metadata__"]), st.text(max_size=2))


@FUZZ
@given(st.dictionaries(names, entries, max_size=3), st.binary(max_size=24))
def test_any_header_is_read_or_refused(tmp_path: Path, header: dict[str, Any], body: bytes) -> None:
    judged(packed(header, body), tmp_path / "w.safetensors")


def test_refusing_a_bomb_costs_nothing(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    with path.open("wb") as file:
        file.write(packed(one(shape=[2**60], data_offsets=[0, 2**62])))
        file.truncate(2**40)  # a terabyte of nothing
    began = time.process_time()  # of this process alone: others may be busy
    with pytest.raises(RunError, match=r"trailing|cut short"):
        weights.read(path)
    os.truncate(path, 0)
    pairs = b",".join(b'"%d":{}' % n for n in range(300_000))
    path.write_bytes(packed(b"{" + pairs + b"}"))
    with pytest.raises(RunError, match="exactly the fields"):
        weights.read(path)
    assert time.process_time() - began < 5


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs FIFOs")
def test_what_is_no_file_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name, words in [("pipe", "special file"), (".", "cannot read|special"), ("x", "No such")]:
        with pytest.raises(RunError, match=words):
            weights.read(tmp_path / name, pickle=True)
    with pytest.raises(RunError, match="cannot read"):
        weights.read(Path("a\0b"))


class Calls:
    """Calls something when it is unpickled."""

    def __init__(self, function: Any, *args: Any) -> None:
        self.call = (function, args)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def saved(value: Any, form: str) -> bytes:
    """A pickle in one of the forms in which they come."""
    if form.startswith("protocol"):
        return pickle.dumps(value, protocol=int(form[-1]))
    stream = io.BytesIO()
    torch.save(value, stream, _use_new_zipfile_serialization=form == "zip")
    return stream.getvalue()


FORMS = ["zip", "old", *(f"protocol {number}" for number in range(6))]


@pytest.mark.parametrize("form", FORMS)
def test_a_pickle_is_named_and_never_run_unasked(
    form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "w.pt"
    path.write_bytes(saved({"w": torch.ones(1), "x": Calls(os.mkdir, str(mark))}, form))
    if form.startswith("protocol"):
        pickle.loads(path.read_bytes())
        mark.rmdir()  # so it does run, where it is let
    monkeypatch.setattr(subprocess, "Popen", None)
    with pytest.raises(RunError, match=r"pickle") as caught:
        weights.read(path)
    assert not mark.exists()
    if form not in ("protocol 0", "protocol 1"):  # PyTorch itself has never written these
        assert f"neocog weights {path} --pickle --out" in caught.value.hint


@pytest.mark.parametrize(
    ("head", "words"),
    [
        (b"cposix\nsystem\np0\n(Vtouch x", "pickle of an old protocol"),
        (b"(dp0\nS'a'\n", "pickle of an old protocol"),
        (b"\x93NUMPY\x01\0v\0{'descr': '|O', 'fortran_order': False", "objects, which is a pickle"),
        (b"\x93NUMPY\x02\0v\0\0\0{'descr': '<f4', 'fortran", "a NumPy array"),
        (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS pointer"),
        (b"\n<!doctype html>", "web page"),
        (b"\x89HDF\r\n", "HDF5"),
        (b"\x1f\x8b\x08", "gzip"),
    ],
)
def test_other_files_are_named(head: bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / "w.bin"
    path.write_bytes(head + bytes(100))
    for say_yes in (False, True):
        with pytest.raises(RunError, match=words) as caught:
            weights.read(path, pickle=say_yes)
        assert caught.value.hint


@pytest.mark.parametrize("form", ["zip", "old"])
def test_with_the_flag_a_pickle_still_runs_nothing(form: str, tmp_path: Path) -> None:
    mark, path = tmp_path / "ran", tmp_path / "w.pt"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = server.getsockname()
        evil: list[tuple[Any, ...]] = [
            (os.system, f"touch {mark}"),
            (socket.create_connection, address),
        ]
        for call in evil:
            path.write_bytes(saved({"w": torch.ones(1), "x": Calls(*call)}, form))
            with pytest.raises(RunError, match=r"holds more than data: [a-z]+\.[a-z_]+") as caught:
                weights.read(path, pickle=True)
            assert "weights_only" not in str(caught.value)
            assert not mark.exists()
            with pytest.raises(BlockingIOError):
                server.accept()


def confined(code: str, **limits: float) -> subprocess.CompletedProcess[str]:
    """A process that confines itself, then does what it should not."""
    settings = {"seconds": 5, "memory": 2**30, "output": 2**20, **limits}
    program = (
        "import sys, json, os, socket, subprocess, shutil, ctypes, time; "
        "sys.path[:] = json.loads(sys.argv[1])\n"
        "from neocog.weights.child import confine, leave_network\n"
        f"confine(**{settings!r})\n{code}\nprint('went on')"
    )
    return subprocess.run(
        [sys.executable, "-I", "-B", "-c", program, json.dumps(sys.path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    "code",
    [
        "os.system('touch {mark}')",
        "open({mark!r}, 'w')",
        "open({mark!r}, 'ab')",
        "os.open({mark!r}, os.O_CREAT | os.O_RDWR)",
        "os.mkdir({mark!r})",
        "os.symlink('/', {mark!r})",
        "os.rename({kept!r}, {mark!r})",
        "os.remove({kept!r})",
        "shutil.copy({kept!r}, {mark!r})",
        "subprocess.run(['touch', {mark!r}])",
        "os.posix_spawn('/bin/touch', ['touch', {mark!r}], os.environ)",
        "os.execv('/bin/touch', ['touch', {mark!r}])",
        "os.fork() or open({mark!r}, 'w')",
        "ctypes.CDLL(None)",
        "socket.socket()",
        "socket.getaddrinfo('localhost', 80)",
        "os.kill(os.getppid(), 0)",
        "try: os.system('touch {mark}')\nexcept BaseException: pass",
    ],
)
@pytest.mark.skipif(os.name != "posix", reason="the calls are those of POSIX")
def test_the_fourth_wall_alone_stops_what_reading_does_not_need(code: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    kept.write_text("kept")
    mark = tmp_path / "mark"
    done = confined(code.format(mark=str(mark), kept=str(kept)))
    assert done.returncode == 1
    assert "it tried to do more than hold tensors: " in done.stderr.splitlines()[-1]
    assert "went on" not in done.stdout
    assert kept.read_text() == "kept"
    assert not os.path.lexists(mark)


def test_a_confined_process_still_reads_and_computes() -> None:
    done = confined(f"print(len(open({__file__!r}).read()) > 0, os.listdir('/') != [])")
    assert done.stdout == "True True\nwent on\n"


@pytest.mark.skipif(sys.platform != "linux", reason="the limits are those of Linux")
def test_the_limits_hold() -> None:
    import signal

    assert confined("while True: pass", seconds=0).returncode == -signal.SIGXCPU
    assert "MemoryError" in confined("bytearray(2**29)", memory=2**28).stderr
    assert confined("bytearray(2**27)", memory=2**28).stdout == "went on\n"


@pytest.mark.skipif(sys.platform != "linux", reason="networks are left on Linux")
def test_there_is_no_network_where_it_can_be_left() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        program = (
            "import sys, json, socket; sys.path[:] = json.loads(sys.argv[1])\n"
            "from neocog.weights.child import leave_network\n"
            "print(leave_network(), flush=True)\n"
            f"socket.create_connection({server.getsockname()!r}, timeout=5)"
        )
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", program, json.dumps(sys.path)],
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
    if done.stdout == "False\n":
        pytest.skip("this system does not let a process leave its network")
    assert done.stdout == "True\n"
    assert "unreachable" in done.stderr.lower()


CALLS = {
    "os.system": (os.system, "touch {mark}"),
    "socket.": (socket.create_connection, ("127.0.0.1", 9), 1),
}


@pytest.mark.parametrize("left", [True, False], ids=["network left", "network not left"])
@pytest.mark.parametrize("event", CALLS)
def test_the_walls_hold_when_the_unpickler_runs_everything(
    event: str, left: bool, tmp_path: Path
) -> None:
    """The same child program, but PyTorch's safe unpickler is switched off; and on a system where
    the network cannot be left."""
    mark = tmp_path / "ran"
    path = tmp_path / "w.pt"
    call = [one.format(mark=mark) if isinstance(one, str) else one for one in CALLS[event]]
    path.write_bytes(saved({"w": torch.ones(1), "x": Calls(*call)}, "zip"))
    program = (
        "import sys, json; sys.path[:] = json.loads(sys.argv[1])\n"
        "import torch, functools\n"
        "true = torch.load\n"
        "torch.load = lambda *a, **k: true(*a, **{**k, 'weights_only': False})\n"
        "from neocog.weights import child\n"
        + ("" if left else "child.leave_network = lambda: False\n")
        + "child.main(sys.argv[2])"
    )
    setting = json.dumps([str(tmp_path / "out.safetensors"), 60, 2**30, 2**20])
    with path.open("rb") as file:
        done = subprocess.run(
            [sys.executable, "-I", "-B", "-c", program, json.dumps(sys.path), setting],
            stdin=file,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
    assert done.returncode == 1
    assert f"tried to do more than hold tensors: {event}" in done.stderr
    assert not mark.exists()
    assert not (tmp_path / "out.safetensors").exists()


def honest() -> dict[str, Any]:
    base = torch.arange(24.0)
    tensors = {name: torch.arange(3).to(getattr(torch, name)) for name, _ in DTYPES.values()}
    return {
        **tensors,
        "channels_last": torch.randn(2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "transposed": base.reshape(4, 6).T,
        "row": base[6:12],
        "tied": base,
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "none": torch.empty(0, 2),
        "one": torch.tensor(3),
        "nan": torch.tensor([float("nan"), float("-inf")]),
    }


@pytest.mark.parametrize("form", ["zip", "old"])
def test_an_honest_pickle_gives_the_tensors_that_went_in(form: str, tmp_path: Path) -> None:
    tensors = honest()
    if form == "old":  # which is older than these types
        for name in ("uint16", "uint32", "uint64"):
            del tensors[name]
    path = tmp_path / "a b.pth"
    extra = {"epoch": 3, "optimizer": {"state": {0: {"m": torch.ones(2)}}}, "arch": "x" * 10_000}
    path.write_bytes(saved({**extra, "state_dict": {**tensors, "steps": 7}}, form))
    found = weights.contents(path, pickle=True)
    assert found.kind == "pickle"
    assert found.under == "state_dict"
    assert found.left == (
        "epoch: int", "optimizer: dict of 1", "arch: str", "state_dict.steps: int",
    )  # fmt: skip
    assert found.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        got = found.tensors[name]
        assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
        assert type(got) is torch.Tensor
        assert write.raw(got) == write.raw(tensor.detach().contiguous()), name
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    path.write_bytes(saved(network.state_dict(), form))
    again = weights.read(path, pickle=True)
    network.load_state_dict(again)
    assert weights.contents(path, pickle=True).under == ""


@pytest.mark.parametrize(
    ("value", "under"),
    [
        ({"a.w": torch.ones(1)}, ""),
        ({"model": {"w": torch.ones(1)}, "step": torch.tensor(3)}, "model"),
        ({"model": "resnet18", "net": {"w": torch.ones(1)}}, "net"),
        ({"model": {"w": torch.ones(1)}, "state_dict": {"v": torch.ones(1)}}, "state_dict"),
        ({"model": {"module": {"state_dict": {"w": torch.ones(1)}}}}, "model.module.state_dict"),
    ],
)
def test_the_rule_where_tensors_are_looked_for(value: Any, under: str) -> None:
    found, place, _ = child.state_dict(value)
    assert place == under
    inside = value
    for key in filter(None, under.split(".")):
        inside = inside[key]
    assert all(found[name] is inside[name] for name in inside)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (torch.ones(1), "found Tensor"),
        ([torch.ones(1)], "found list of 1"),
        ({}, "found nothing"),
        ({"encoder": {"w": torch.ones(1)}}, "found encoder: dict of 1"),
        ({"state_dict": {"x": 1}}, "found x: int"),
    ],
)
def test_what_is_not_found_is_not_guessed(value: Any, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        child.state_dict(value)


def refused_pickle(path: Path, value: Any, **limits: Any) -> str:
    path.write_bytes(value if isinstance(value, bytes) else saved(value, "zip"))
    with pytest.raises(RunError, match="was not read") as caught:
        weights.contents(path, pickle=True, limits=weights.Limits(**limits))
    assert "Traceback" not in str(caught.value)
    return caught.value.message


def test_what_cannot_be_taken_is_named(tmp_path: Path) -> None:
    for tensor, words in [
        (torch.zeros(2, dtype=torch.complex128), "w is a complex128 tensor"),
        (torch.eye(2).to_sparse(), "w is a sparse or quantised tensor"),
        (torch.empty(2, device="meta"), "w is a meta float32 tensor"),
    ]:
        with pytest.raises(ValueError, match=words):
            child.plain({"w": tensor}, 2**20)
    for name in (0, "__metadata__", "\ud800"):
        with pytest.raises(ValueError, match="cannot name a tensor"):
            child.plain({name: torch.ones(1)}, 2**20)
    path = tmp_path / "w.pt"
    assert "torch.nn.modules.linear.Linear" in refused_pickle(path, torch.nn.Linear(1, 1))
    whole = saved({"w": torch.ones(1000)}, "zip")
    assert "damaged, or no PyTorch file" in refused_pickle(path, whole[:-40])


def test_a_child_that_its_limits_end_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "w.pt"
    assert "took longer than 0.05 seconds" in refused_pickle(path, HONEST, seconds=0.05)
    bomb = {"w": torch.zeros(1).expand(10**10)}
    assert "unfold to 40,000,000,000 bytes" in refused_pickle(path, bomb)
    if sys.platform == "linux":
        said = refused_pickle(path, {"w": torch.zeros(2**23)}, memory=2**22)
        assert "more memory than the 4,194,304 bytes" in said
        monkeypatch.setattr(pickled, "_run", lambda *_: -9)
        assert "ended by SIGKILL" in refused_pickle(path, HONEST)
        monkeypatch.setattr(pickled, "_run", lambda *_: -24)
        assert "30 seconds of processor time" in refused_pickle(path, HONEST, seconds=30)


def test_a_result_that_is_no_result_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child that was taken over can write what it wants, and it is checked like any file."""
    path = tmp_path / "w.pt"
    path.write_bytes(saved(HONEST, "zip"))
    for content, words in [
        (packed(one(), BODY), "did not say"),
        (packed({"__metadata__": {"neocog": "[" * 100_000}, **one()}, BODY), "did not say"),
        (packed({"__metadata__": {"neocog": "3"}, **one()}, BODY), "did not say"),
        (BROKEN["overlap"][0], "an overlap"),
        (saved(HONEST, "zip"), "header length"),
    ]:

        def write(file: Any, said: Any, setting: str, *_: Any, content: bytes = content) -> int:
            Path(json.loads(setting)[0]).write_bytes(content)
            return 0

        monkeypatch.setattr(pickled, "_run", write)
        with pytest.raises(RunError, match=words):
            weights.read(path, pickle=True)
    monkeypatch.setattr(pickled, "_run", lambda *_: 0)
    with pytest.raises(RunError, match="cannot read"):
        weights.read(path, pickle=True)


def test_check_names_everything_with_both_values() -> None:
    expected = dict.fromkeys(("same", "gone", "shape", "type"), ((2, 3), torch.float32))
    tensors = {
        "same": torch.zeros(2, 3),
        "shape": torch.zeros(3, 2),
        "type": torch.zeros(2, 3, dtype=torch.float16),
        **{f"more{number}": torch.zeros(1) for number in range(20)},
    }
    with pytest.raises(RunError) as caught:
        weights.check("the weights of x", tensors, expected)
    said = caught.value.message
    assert "the weights of x do not fit" in said
    assert "missing gone" in said
    assert all(f"unknown more{number}" in said for number in range(20))
    assert "shape is (3, 2) torch.float32, expected (2, 3) torch.float32" in said
    assert "type is (2, 3) torch.float16, expected (2, 3) torch.float32" in said
    assert "same" not in said
    weights.check("x", {"same": tensors["same"]}, {"same": expected["same"]})


def calls(tree: ast.AST) -> list[tuple[str, set[str]]]:
    """Dotted names of what is called, with the keywords."""
    return [
        (ast.unparse(node.func), {f"{k.arg}={ast.unparse(k.value)}" for k in node.keywords})
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
    ]


def unpickles(text: str) -> list[str]:
    """What in a source file could unpickle."""
    tree = ast.parse(text)
    modules = {"pickle", "_pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal"}
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.split(".")[0] in modules]
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] in modules:
            found.append(str(node.module))
    for name, keywords in calls(tree):
        if name in ("torch.load", "torch.jit.load", "torch.package.PackageImporter"):
            found.append(name)
        if name.endswith((".read_pickle", ".load_module")):
            found.append(name)
        if name.split(".")[-1] in ("load", "memmap", "open_memmap") and any(
            keyword.startswith("allow_pickle") and keyword != "allow_pickle=False"
            for keyword in keywords
        ):
            found.append(name)
    return found


def test_nothing_but_the_child_can_unpickle() -> None:
    found = {
        str(path.relative_to(SOURCE)): unpickles(path.read_text(encoding="utf-8"))
        for path in SOURCE.rglob("*.py")
    }
    assert {path for path, names in found.items() if names} == {str(Path("weights") / "child.py")}
    tree = ast.parse((SOURCE / "weights" / "child.py").read_text(encoding="utf-8"))
    loads = [keywords for name, keywords in calls(tree) if name == "torch.load"]
    assert loads
    assert all("weights_only=True" in keywords for keywords in loads)


@pytest.mark.parametrize(
    "line",
    [
        "import pickle",
        "from pickle import loads",
        "torch.load(path)",
        "np.load(path, allow_pickle=True)",
        "numpy.load(path, allow_pickle=yes)",
        "pandas.read_pickle(path)",
    ],
)
def test_that_search_can_fail(line: str) -> None:
    assert unpickles(line)


def test_the_command_lists_and_converts(tmp_path: Path) -> None:
    path, out = tmp_path / "w.pt", tmp_path / "out.safetensors"
    path.write_bytes(saved({"model": {"layer.w": torch.ones(2, 3)}, "epoch": 1}, "zip"))
    run = CliRunner().invoke
    refused = run(cli, ["weights", str(path)])
    assert isinstance(refused.exception, RunError)
    assert "--pickle" in str(refused.exception)
    said = run(cli, ["weights", str(path), "--pickle", "--out", str(out)]).output
    assert "layer.w  2×3  float32  24 bytes" in said
    assert "1 tensors, 6 numbers, 24 bytes" in said
    assert "found under: model" in said
    assert "epoch: int" in said
    assert library_load(out.read_bytes())["layer.w"].tolist() == torch.ones(2, 3).tolist()
    value = json.loads(run(cli, ["weights", str(out), "--json"]).output)
    assert value["kind"] == "safetensors"
    assert value["tensors"] == [
        {"name": "layer.w", "shape": [2, 3], "dtype": "float32", "bytes": 24}
    ]
    assert (value["numbers"], value["bytes"], value["left"]) == (6, 24, [])
    wrong = run(cli, ["weights", str(out), "--out", str(path)])
    assert isinstance(wrong.exception, NeocogError)
    assert ".safetensors" in str(wrong.exception)


def test_asking_for_help_and_being_refused_load_no_torch(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    path.write_bytes(saved(HONEST, "zip"))
    program = (
        "import sys; from pathlib import Path; from click.testing import CliRunner\n"
        "from neocog.cli import cli\n"
        "assert CliRunner().invoke(cli, ['weights', '--help']).exit_code == 0\n"
        "from neocog import weights\n"
        f"try: weights.read(Path({str(path)!r}))\nexcept Exception as error: print(type(error))\n"
        "print('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert "RunError" in done.stdout
    assert done.stdout.endswith("False\n")
