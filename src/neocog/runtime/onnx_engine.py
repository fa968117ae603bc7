"""An exported file, computed by ONNX Runtime. Floor 3, room runtime.

Imports floor 0, NumPy and its own room; ONNX Runtime, an extra, when a file is opened.
The library never learns where a file lies: it is handed bytes that were read once and checked, so
that nothing in them can name another file.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.errors import ConfigError, RunError
from neocog.host import cores
from neocog.runtime.content import Content, onnx_content
from neocog.runtime.foreign import REMEDY, read_file
from neocog.runtime.label import ports
from neocog.runtime.samples import answered, check_samples
from neocog.text import printable

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neocog.described import Described
    from neocog.runtime.engine import Kind

__all__ = ["OnnxEngine"]

_DTYPES = {"tensor(uint8)": "uint8", "tensor(int16)": "int16", "tensor(float)": "float32"}


class OnnxEngine:
    """A file that `neocog export` wrote.

    Args:
        file: its path, its bytes, or what was read of it.
        threads: of the processor; 0: all that this process may use.
        device: `cpu`, `cuda` or `cuda:N`; `auto` is a GPU where the installed ONNX Runtime can use
            one.

    Raises:
        ConfigError: ONNX Runtime is not installed, or cannot use that device.
        RunError: the file is missing, damaged, holds what is never opened, or was not made by
            neocog.
    """

    kind: Kind = "onnxruntime"

    def __init__(
        self, file: Path | str | bytes | Content, *, threads: int = 0, device: str = "cpu"
    ) -> None:
        content = _content(file)
        self.described: Described = content.label.described
        self.origin, self.precision = content.label.origin, content.label.precision
        self.file = content.name
        self.digest = content.digest
        self.threads = threads or cores()
        self.device, providers = _providers(device)
        self._session = _session(content.model, content.where, self.threads, providers)
        inputs = {one.name: _DTYPES.get(one.type, one.type) for one in self._session.get_inputs()}
        outputs = [one.name for one in self._session.get_outputs()]
        self._input, self._output, self.dtypes = ports(inputs, outputs, content.where)

    @property
    def settings(self) -> dict[str, Any]:
        """Device, threads, precision, and the file's name where it has one."""
        return {
            "device": self.device,
            "threads": self.threads,
            "precision": self.precision,
            **({"file": self.file} if self.file else {}),
        }

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        """See `Engine`."""
        check_samples(samples, self.described.input, self.dtypes)
        return answered(samples, self._answer, self.described)

    def _answer(self, samples: NDArray[Any]) -> NDArray[Any]:
        """What the library says, for as many pixels as it is given."""
        try:
            found = self._session.run([self._output], {self._input: samples})[0]
        except Exception as error:  # the library's errors have no other root
            raise RunError(f"ONNX Runtime failed: {printable(str(error))[:500]}") from error
        answers: NDArray[Any] = np.asarray(found, np.float32)
        return answers


def _content(file: Path | str | bytes | Content) -> Content:
    """What was read, or is read now.

    Raises:
        RunError: see `onnx_content` and `read_file`.
    """
    if isinstance(file, Content):
        return file
    if isinstance(file, bytes):
        return onnx_content(file)
    path = Path(file)
    return onnx_content(read_file(path), printable(str(path)), printable(path.name))


def _runtime() -> Any:
    """The library.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import onnxruntime
    except ImportError as error:
        raise ConfigError(
            "ONNX Runtime is not installed, which computes .onnx files",
            'pip install "neocog[export]"',
        ) from error
    return onnxruntime


def _providers(device: str) -> tuple[str, list[Any]]:
    """The device by name, and the library's words for it.

    Raises:
        ConfigError: an unknown name, or one that the library cannot use here.
    """
    kind, _, index = device.partition(":")
    gpu = "CUDAExecutionProvider"
    present = gpu in _runtime().get_available_providers()
    if kind == "cpu" or (kind == "auto" and not present):
        return "cpu", ["CPUExecutionProvider"]
    if kind not in ("auto", "cuda") or (index and not index.isdecimal()):
        raise ConfigError(
            f"ONNX Runtime does not compute on {device!r} here", "known: auto, cpu, cuda, cuda:N"
        )
    if not present:
        raise ConfigError(
            f"the installed ONNX Runtime does not compute on {device}",
            "install onnxruntime-gpu, or leave --device out",
        )
    number = int(index or 0)
    return f"cuda:{number}", [(gpu, {"device_id": number}), "CPUExecutionProvider"]


def _session(data: bytes, where: str, threads: int, providers: list[Any]) -> Any:
    """The library's hold on the model.

    Raises:
        RunError: it cannot be read, or computed.
    """
    runtime = _runtime()
    runtime.disable_telemetry_events()
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    options.log_severity_level = 3
    for key, value in {
        # Bytes can pass for two formats at once; only the one that was checked is read.
        "session.load_model_format": "ONNX",
        # Threads that wait in a loop take the time of whoever else works on this machine: where
        # others wanted both of 2 cores, four calls of a small network took 51 ms instead of 76.
        "session.intra_op.allow_spinning": "0",
        "session.inter_op.allow_spinning": "0",
    }.items():
        options.add_session_config_entry(key, value)
    try:
        return runtime.InferenceSession(data, options, providers=providers)
    except Exception as error:  # the library's errors have no other root
        why = printable(str(error))[:500]
        raise RunError(f"{where}: ONNX Runtime cannot read it: {why}", REMEDY) from error
