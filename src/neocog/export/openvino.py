"""An exported network in OpenVINO's form (IR): NAME.xml, and NAME.bin with its weights. Floor 4.

Room export; imports errors, files, the runtime's hold on the library, and OpenVINO (the extra
`openvino`) where it is used. The library's own reader of ONNX files is called, not its converter
`ovc`, which also reports what it converts.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from neocog.errors import RunError
from neocog.files import write_atomic
from neocog.runtime.label import NAME
from neocog.runtime.openvino_library import openvino_core, openvino_library

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["write"]

_BLOCK = 1 << 22
"""Bytes of weights that are held at once."""


def write(onnx_path: Path, out: Path, metadata: str, *, half: bool = False) -> None:
    """Write `out` and, beside it, the weights under the same name with `.bin`.

    While the two are written there is no `.xml`: a crash leaves no pair that does not belong
    together.

    Args:
        onnx_path: as `export.onnx` writes it, in fp32 or int8.
        out: ends in `.xml`.
        metadata: JSON text, kept in `rt_info` under `neocog`.
        half: store weights as fp16; the arithmetic is that of the device.

    Raises:
        ConfigError: the extra is not installed.
        RunError: the library cannot read the network, or the files cannot be written.
        ValueError: `metadata` is no JSON, or `out` does not end in `.xml`.
    """
    if out.suffix != ".xml":
        raise ValueError(f"expected a path that ends in .xml, got {out}")
    openvino = openvino_library()
    # In ASCII and on one line: XML turns line ends within attributes into spaces.
    text = json.dumps(json.loads(metadata))
    with tempfile.TemporaryDirectory(prefix="neocog-openvino-") as folder:
        made = Path(folder) / "model.xml"
        try:
            model = openvino_core().read_model(onnx_path)
            model.set_rt_info(text, [NAME])
            openvino.save_model(model, made, compress_to_fp16=half)
        except RuntimeError as error:
            raise RunError(f"OpenVINO cannot take {onnx_path.name}: {error}") from error
        weights = made.with_suffix(".bin")
        _remove(out)
        write_atomic(out.with_suffix(".bin"), _blocks(weights), size=weights.stat().st_size)
        write_atomic(out, made.read_bytes())


def _blocks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            yield block


def _remove(path: Path) -> None:
    """Delete a file that may be absent.

    Raises:
        RunError: it cannot be deleted.
    """
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise RunError(f"cannot replace {path}: {error.strerror or error}") from error
