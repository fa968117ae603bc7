"""A model repository for NVIDIA's Triton Inference Server, around an exported ONNX file. Floor 4.

Room export; imports described, errors, files, text, and onnx (the extra `export`) where it is used.
Layout and fields: https://github.com/triton-inference-server/server, docs/user_guide,
model_repository.md and model_configuration.md; `model_config.proto` of its repository `common`.
"""

from __future__ import annotations

import json
import re
from typing import TYPE_CHECKING, Any

from neocog.errors import ConfigError, RunError
from neocog.files import write_atomic
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neocog.described import Described

__all__ = ["must_be_ours", "write"]

_MARK = "# Written by neocog export. Written over when it exports to this folder again.\n"
_CONFIG, _LABELS, _MODEL = "config.pbtxt", "labels.txt", "1/model.onnx"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.\-]{0,127}")
_TYPES = {"UINT8", "INT16", "INT64", "FLOAT16", "FLOAT", "DOUBLE"}
"""Types of ONNX that samples and answers have."""
_RENAMED = {"FLOAT": "FP32", "FLOAT16": "FP16", "DOUBLE": "FP64"}
"""ONNX's names of types, where Triton has others."""


def write(
    folder: Path,
    onnx_path: Path,
    described: Described,
    *,
    name: str,
    batch: int = 64,
    delay_us: int = 2000,
) -> list[Path]:
    """Write `folder/name/` with `1/model.onnx`, `labels.txt` and, last, `config.pbtxt`.

    Args:
        folder: the model repository; other models in it stay as they are.
        onnx_path: as `export.onnx` writes it: the first axis is the samples', of any number.
        described: what the file says of itself.
        name: of the model, and of its folder.
        batch: samples that Triton may answer for at once.
        delay_us: microseconds that a request may wait for others to be answered with it.

    Returns:
        The files.

    Raises:
        ConfigError: the extra is not installed, a name that Triton does not take, or numbers out
            of range.
        RunError: another model stands there under that name, or a file cannot be written.
    """
    if not _NAME.fullmatch(name):
        raise ConfigError(
            f"Triton does not take the name {name!r:.80}",
            "expected 1 to 128 letters, digits, _, - and dots, the first no dot",
        )
    if batch < 1 or delay_us < 0:
        raise ConfigError(f"expected a batch of 1 or more and a delay of 0 µs or more, got {batch}")
    home = folder / name
    must_be_ours(home)
    config = _config(_signature(onnx_path), described, name, batch, delay_us)
    # In labels.txt a line is a class; the exact names stand in the parameters, as JSON.
    labels = "".join(f"{printable(one)}\n" for one in described.classes)
    files = {_MODEL: onnx_path.read_bytes(), _LABELS: labels.encode(), _CONFIG: config.encode()}
    for path, content in files.items():
        write_atomic(home / path, content)
    return [home / path for path in files]


def must_be_ours(home: Path) -> None:
    """Raise RunError unless nothing is at that place, or only what `write` leaves there."""
    if not home.exists() and not home.is_symlink():
        return
    found = {path.relative_to(home).as_posix() for path in home.rglob("*") if not path.is_dir()}
    ours = found <= {_CONFIG, _LABELS, _MODEL}
    if home.is_dir() and _CONFIG in found:
        ours = ours and (home / _CONFIG).read_bytes().startswith(_MARK.encode())
    elif found:
        ours = False
    if home.is_symlink() or not home.is_dir() or not ours:
        raise RunError(
            f"{home} holds something that neocog did not write",
            "choose another folder or name; nothing was changed",
        )


def _signature(onnx_path: Path) -> tuple[list[Any], list[Any]]:
    """Inputs and outputs of the file: name, Triton's name of the type, sizes behind the first axis
    (−1: any)."""
    try:
        import onnx
    except ImportError as error:
        raise ConfigError(
            f"onnx cannot be imported: {error}", 'pip install "neocog[export]"'
        ) from error
    graph = onnx.load(onnx_path, load_external_data=False).graph

    def of(value: Any) -> tuple[str, str, list[int]]:
        tensor = value.type.tensor_type
        kind = onnx.TensorProto.DataType.Name(tensor.elem_type)
        if kind not in _TYPES:
            raise RunError(f"{onnx_path}: {value.name} has type {kind}, which is not exported")
        axes = tensor.shape.dim[1:]
        sizes = [one.dim_value if one.HasField("dim_value") else -1 for one in axes]
        return value.name, f"TYPE_{_RENAMED.get(kind, kind)}", sizes

    return [of(one) for one in graph.input], [of(one) for one in graph.output]


def _config(
    signature: tuple[list[Any], list[Any]],
    described: Described,
    name: str,
    batch: int,
    delay_us: int,
) -> str:
    """The text of `config.pbtxt`: a `ModelConfig` in protobuf's text format."""
    inputs, outputs = signature
    sizes = sorted({max(1, batch // 4), max(1, batch // 2), batch})
    parameters = {
        "task": described.task.name,
        "model": described.model.name,
        "classes": json.dumps(list(described.classes)),
        **{f"version_{key}": text for key, text in sorted(described.manifest.versions.items())},
    }
    return "".join(
        [
            _MARK,
            f"name: {_quoted(name)}\n",
            'backend: "onnxruntime"\n',
            f"max_batch_size: {batch}\n",
            *(_tensor("input", *one) for one in inputs),
            *(_tensor("output", *one, labels=len(one[2]) == 1) for one in outputs),
            "version_policy { latest { num_versions: 1 } }\n",
            "dynamic_batching {\n",
            f"  preferred_batch_size: {_listed(sizes)}\n",
            f"  max_queue_delay_microseconds: {delay_us}\n",
            "}\n",
            *(
                f"parameters {{ key: {_quoted(f'neocog_{key}')} "
                f"value {{ string_value: {_quoted(text)} }} }}\n"
                for key, text in parameters.items()
            ),
        ]
    )


def _tensor(what: str, name: str, kind: str, sizes: Sequence[int], *, labels: bool = False) -> str:
    """One input or output; labels belong to outputs with one number for each class."""
    return (
        f"{what} {{\n  name: {_quoted(name)}\n  data_type: {kind}\n  dims: {_listed(sizes)}\n"
        + (f"  label_filename: {_quoted(_LABELS)}\n" if labels else "")
        + "}\n"
    )


def _listed(numbers: Sequence[int]) -> str:
    return f"[{', '.join(map(str, numbers))}]"


def _quoted(text: str) -> str:
    r"""A string of protobuf's text format: what is not plain ASCII as bytes in octal.

    >>> print(_quoted('a "é"\n'))
    "a \042\303\251\042\012"
    """
    plain = set(range(32, 127)) - set(b'"\\')
    data = text.encode("utf-8", "backslashreplace")
    return '"' + "".join(chr(byte) if byte in plain else f"\\{byte:03o}" for byte in data) + '"'
