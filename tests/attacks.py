"""Model files that want something: rows of the battery in `test_foreign_files`.

Each stands in a folder of its own, with a decoy outside it that nobody may open; where the decoy
would do as the file's data, it holds them.
"""

from __future__ import annotations

import gzip
import io
import json
import os
import pickle
import tarfile
import zipfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper

import exported
from served import small_bundle

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["ATTACKS", "Attack", "external", "hidden"]


@dataclass(frozen=True)
class Attack:
    """One row."""

    name: str
    """What it is."""
    path: str
    """What is opened, in the attack's folder; empty: the folder itself."""
    plant: Callable[[Path, Path], object]
    """Writes it: the attack's folder, and the decoy."""
    words: str
    """What the refusal says."""
    engine: str = "auto"
    """Asked for."""


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.mark}",)


def _mark(folder: Path) -> Path:
    return folder.parent / "executed"


def _pickle(folder: Path) -> bytes:
    return pickle.dumps({"weight": Evil(_mark(folder))})


def _torch(folder: Path, *, zipped: bool = True) -> bytes:
    stream = io.BytesIO()
    torch.save({"weight": Evil(_mark(folder))}, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def _zip(folder: Path) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        file.writestr("archive/data.pkl", _pickle(folder))
        file.writestr("../../escaped", "x")
    return stream.getvalue()


def _tar(folder: Path) -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w") as file:
        for name in ("model.onnx", "../escaped"):
            info = tarfile.TarInfo(name)
            info.size = 1
            file.addfile(info, io.BytesIO(b"x"))
    return stream.getvalue()


def _objects(folder: Path) -> bytes:
    stream = io.BytesIO()
    np.save(stream, np.array([Evil(_mark(folder))], object), allow_pickle=True)
    return stream.getvalue()


DRESSES: dict[str, Callable[[Path], bytes]] = {
    "a pickle": _pickle,
    "an old pickle": lambda folder: pickle.dumps(Evil(_mark(folder)), protocol=0),
    "torch.save": _torch,
    "torch.save, old": lambda folder: _torch(folder, zipped=False),
    "a zip with data.pkl": _zip,
    "a gzipped pickle": lambda folder: gzip.compress(_pickle(folder)),
    "a NumPy array of objects": _objects,
    "a tar": _tar,
}
NAMES = {
    ".pt": "may run code",
    ".pth": "may run code",
    ".pt2": "may run code",
    ".pkl": "may run code",
    ".onnx": "expected an ONNX model, found|damaged, or no ONNX model|is not opened",
    ".xml": "expected an OpenVINO model, found|is not opened",
    ".safetensors": "expected a run's folder",
    ".zip": "expected a run's folder",
    "": "expected a run's folder",
}


def _dressed(make: Callable[[Path], bytes], name: str) -> Callable[[Path, Path], object]:
    def plant(folder: Path, decoy: Path) -> None:
        (folder / name).write_bytes(make(folder))
        if name.endswith(".xml"):
            (folder / name).with_suffix(".bin").write_bytes(make(folder))

    return plant


def _bundle(spoil: Callable[[Path, bytes], bytes]) -> Callable[[Path, Path], object]:
    """A bundle with other weights."""

    def plant(folder: Path, decoy: Path) -> None:
        small_bundle().save(folder / "bundle")
        file = folder / "bundle" / "weights.safetensors"
        file.write_bytes(spoil(folder, file.read_bytes()))

    return plant


def _as_weights(make: Callable[[Path], bytes]) -> Callable[[Path, bytes], bytes]:
    return lambda folder, _: make(folder)


def _header(change: Callable[[dict[str, Any]], object]) -> Callable[[Path, bytes], bytes]:
    """A safetensors file with another header."""

    def spoil(_: Path, data: bytes) -> bytes:
        length = int.from_bytes(data[:8], "little")
        header = json.loads(data[8 : 8 + length])
        change(header)
        text = json.dumps(header).encode()
        return len(text).to_bytes(8, "little") + text + data[8 + length :]

    return spoil


def _first(header: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = next(v for k, v in header.items() if k != "__metadata__")
    return found


LIES: dict[str, Callable[[Path, bytes], bytes]] = {
    "a length beyond the file": lambda _, data: (2**40).to_bytes(8, "little") + data[8:],
    "a length of 2**64 - 1": lambda _, data: b"\xff" * 8 + data[8:],
    "offsets beyond the file": _header(lambda h: _first(h).update(data_offsets=[0, 2**40])),
    "offsets backwards": _header(lambda h: _first(h)["data_offsets"].reverse()),
    "a shape of its own": _header(lambda h: _first(h).update(shape=[2**31, 2**31])),
    "cut short": lambda _, data: data[:-5],
}


def external(made: onnx.ModelProto, tensor: onnx.TensorProto, location: str, decoy: Path) -> bytes:
    """A model whose tensor lies elsewhere; the decoy gets its numbers, so that it would do."""
    decoy.write_bytes(tensor.raw_data)
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in {"location": location, "offset": "0"}.items():
        tensor.external_data.add(key=key, value=value)
    return exported.labelled(made)


def _outside(where: str) -> Callable[[Path, Path], object]:
    """External data: by a name beside it, an absolute one, `../`, or a link."""

    def plant(folder: Path, decoy: Path) -> None:
        location = {
            "absolute": str(decoy),
            "up": f"../{decoy.name}",
            "up and down": f"./x/../../{decoy.name}",
            "memory": "*/_ORT_MEM_ADDR_/*",
        }.get(where, "weights.bin")
        made = exported.model()
        (folder / "x").mkdir()
        (folder / "net.onnx").write_bytes(
            external(made, made.graph.initializer[2], location, decoy)
        )
        if where == "symbolic link":
            (folder / "weights.bin").symlink_to(decoy)
        elif where == "hard link":
            (folder / "weights.bin").hardlink_to(decoy)

    return plant


def _tensor(location: str = "weights.bin") -> onnx.TensorProto:
    tensor = numpy_helper.from_array(np.zeros((3, 3, 3, 3), np.float32), "inner")
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def _constant() -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["inner"], value=_tensor())


def hidden() -> dict[str, onnx.ModelProto]:
    """External data in every place that a tensor can have."""
    found = {name: exported.model() for name in ("node", "tensors", "branch", "branches", "sparse")}
    found |= {name: exported.model() for name in ("sparse node", "function", "training", "indices")}
    found["node"].graph.node.insert(0, _constant())
    node = helper.make_node("Custom", [], ["inner"])
    node.attribute.add(name="many", type=onnx.AttributeProto.TENSORS).tensors.append(_tensor())
    found["tensors"].graph.node.insert(0, node)
    inner = helper.make_graph([_constant()], "inner", [], [])
    deeper = helper.make_graph(
        [helper.make_node("If", ["c"], ["d"], then_branch=inner)], "d", [], []
    )
    node = helper.make_node("If", ["images"], ["inner"], then_branch=deeper, else_branch=inner)
    found["branch"].graph.node.insert(0, node)
    node = helper.make_node("Custom", [], ["inner"])
    node.attribute.add(name="many", type=onnx.AttributeProto.GRAPHS).graphs.append(inner)
    found["branches"].graph.node.insert(0, node)
    for name, part in {"sparse": "values", "indices": "indices"}.items():
        sparse = onnx.SparseTensorProto(dims=[4])
        getattr(sparse, part).CopyFrom(_tensor())
        found[name].graph.sparse_initializer.append(sparse)
    node = helper.make_node("Constant", [], ["inner"])
    attribute = node.attribute.add(name="sparse_value", type=onnx.AttributeProto.SPARSE_TENSOR)
    attribute.sparse_tensor.values.CopyFrom(_tensor())
    found["sparse node"].graph.node.insert(0, node)
    opset = [helper.make_opsetid("", 20)]
    found["function"].functions.append(
        helper.make_function("pkg", "f", [], ["inner"], [_constant()], opset)
    )
    found["training"].training_info.add().initialization.CopyFrom(inner)
    return found


def _hidden(name: str) -> Callable[[Path, Path], object]:
    def plant(folder: Path, decoy: Path) -> None:
        (folder / "net.onnx").write_bytes(exported.labelled(hidden()[name]))
        (folder / "weights.bin").symlink_to(decoy)

    return plant


def _operator(domain: str, name: str) -> Callable[[Path, Path], object]:
    """A node that may load what it names."""

    def plant(folder: Path, decoy: Path) -> None:
        made = exported.model()
        node = helper.make_node(
            name, ["images"], ["more"], domain=domain, ep_cache_context=str(decoy), embed_mode=0
        )
        made.graph.node.append(node)
        made.opset_import.append(helper.make_opsetid(domain, 1))
        (folder / "net.onnx").write_bytes(exported.labelled(made))

    return plant


def _ir(change: Callable[[str, Path], str], numbers: str = "") -> Callable[[Path, Path], object]:
    """OpenVINO's form with another text, or with other numbers beside it."""

    def plant(folder: Path, decoy: Path) -> None:
        path = exported.written_ir(exported.labelled(exported.model()), folder / "net.xml")
        path.write_text(change(path.read_text(), decoy))
        beside = path.with_suffix(".bin")
        decoy.write_bytes(beside.read_bytes())
        if numbers:
            beside.unlink()
        if numbers == "symbolic link":
            beside.symlink_to(decoy)
        elif numbers == "pipe":
            os.mkfifo(beside)
        elif numbers == "short":
            beside.write_bytes(b"1234")

    return plant


_LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10 if n else "ha"}">' for n in range(10))


def _doctype(inside: str, use: str) -> Callable[[str, Path], str]:
    def change(text: str, decoy: Path) -> str:
        text = text.replace("<net ", f"<!DOCTYPE net [{inside.format(decoy=decoy)}]><net ")
        return text.replace("<layers>", f"{use}<layers>")

    return change


def _swap(old: str, new: str) -> Callable[[str, Path], str]:
    def change(text: str, decoy: Path) -> str:
        assert old in text
        return text.replace(old, new.format(decoy=decoy), 1)

    return change


IR = {
    "billion laughs": (_doctype(_LAUGHS, "&l9;"), "is not opened"),
    "an entity that is a file": (_doctype('<!ENTITY x SYSTEM "file://{decoy}">', "&x;"), "not op"),
    "a DTD elsewhere": (_doctype('<!ENTITY % x SYSTEM "http://127.0.0.1:9/">%x;', ""), "not op"),
    "an include": (
        _swap(
            "<layers>", '<include xmlns="http://www.w3.org/2001/XInclude" href="{decoy}"/><layers>'
        ),
        "the element",
    ),
    "a style sheet": (_swap("<net ", '<?xml-stylesheet href="{decoy}"?><net '), "plain XML"),
    "a layer of an extension": (_swap('version="opset1"', 'version="extension"'), "not of opsetN"),
    "a path": (_swap('destination_type="f32"', 'destination_type="{decoy}"'), "holds a path"),
    "a constant beyond the file": (_swap('offset="0"', 'offset="999999"'), "a constant of"),
    "a constant before the file": (_swap('offset="0"', 'offset="-4"'), "a whole number"),
    "a constant that lies": (_swap('shape="1, 3, 1, 1"', 'shape="99999, 99999"'), "a constant of"),
    "too deep": (_swap("<rt_info>", "<rt_info>" + "<a>" * 99), "elements deep"),
    "cut short": (lambda text, _: text[:-40], "is not opened"),
    "in UTF-16": (_swap('version="1.0"', 'version="1.0" encoding="cp037"'), "plain XML"),
}


def _special(what: str, name: str) -> Callable[[Path, Path], object]:
    """What is no regular file."""

    def plant(folder: Path, decoy: Path) -> None:
        path = folder / name
        if what == "a pipe":
            os.mkfifo(path)
        elif what == "a folder":
            path.mkdir()
        else:
            path.symlink_to({"a device": "/dev/zero", "a loop": name}[what])

    return plant


ATTACKS = (
    *(
        Attack(f"{dress} named net{suffix}", f"net{suffix}", _dressed(make, f"net{suffix}"), words)
        for dress, make in DRESSES.items()
        for suffix, words in NAMES.items()
    ),
    *(
        Attack(f"{dress} as a bundle's weights", "", _bundle(_as_weights(make)), "damaged")
        for dress, make in DRESSES.items()
    ),
    *(
        Attack(f"safetensors with {lie}", "", _bundle(spoil), "damaged")
        for lie, spoil in LIES.items()
    ),
    *(
        Attack(
            f"data outside: {where}, {engine}", "net.onnx", _outside(where), "external data", engine
        )
        for where in ("up", "up and down", "absolute", "memory", "symbolic link", "hard link")
        for engine in ("onnxruntime", "openvino")
    ),
    *(
        Attack(
            f"data outside, in {name}",
            "net.onnx",
            _hidden(name),
            "field" if name in ("function", "training") else "external data",
        )
        for name in hidden()
    ),
    *(
        Attack(f"the operator {name} of {domain}", "net.onnx", _operator(domain, name), "operator")
        for domain, name in (
            ("com.microsoft", "EPContext"),
            ("com.microsoft.extensions", "PyCustomOp"),
            ("org.pytorch.aten", "ATen"),
            ("evil", "Load"),
        )
    ),
    *(
        Attack(f"OpenVINO: {name}", "net.xml", _ir(change), words)
        for name, (change, words) in IR.items()
    ),
    *(
        Attack(f"OpenVINO: numbers: {how}", "net.xml", _ir(lambda text, _: text, how), words)
        for how, words in {
            "symbolic link": "symbolic link",
            "pipe": "expected a file",
            "short": "a constant of",
            "none": "cannot read",
        }.items()
    ),
    *(
        Attack(f"{what} named net{suffix}", f"net{suffix}", _special(what, f"net{suffix}"), words)
        for suffix in (".onnx", ".xml", "")
        for what, words in {
            "a pipe": "expected a",
            "a device": "expected a",
            "a folder": "neither a run nor",
            "a loop": "cannot read|expected a",
        }.items()
    ),
)
