"""An exported file, computed by OpenVINO. Floor 3, room runtime.

Imports floor 0, NumPy and its own room; OpenVINO, an extra, when a file is opened. Both the files
of ONNX and those of OpenVINO itself (`.xml` with `.bin` beside it) are read; the library is handed
bytes that were read once and checked, and never learns where they lie.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.errors import RunError
from neocog.host import cores
from neocog.runtime.content import Content, read_content
from neocog.runtime.foreign import REMEDY
from neocog.runtime.label import ports
from neocog.runtime.openvino_library import openvino_core, openvino_library
from neocog.runtime.samples import answered, check_samples
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from neocog.described import Described
    from neocog.runtime.engine import Kind

__all__ = ["OpenVinoEngine"]

_CACHE = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
_DTYPES = {"u8": "uint8", "i16": "int16", "f32": "float32"}


class OpenVinoEngine:
    """A file that `neocog export` wrote, on the processor.

    Args:
        file: the path of an `.xml` with its `.bin` beside it, or of an ONNX file; or what was read
            of it.
        threads: of the processor; 0: all that this process may use.

    Raises:
        ConfigError: OpenVINO is not installed.
        RunError: the file is missing, damaged, holds what is never opened, or was not made by
            neocog.
    """

    kind: Kind = "openvino"

    def __init__(self, file: Path | str | Content, *, threads: int = 0) -> None:
        content = file if isinstance(file, Content) else read_content(Path(file))
        self.described: Described = content.label.described
        self.origin, self.precision = content.label.origin, content.label.precision
        self.digest = content.digest
        self.threads = threads or cores()
        self.file = content.name
        with _nothing_kept():
            self._model = _compiled(content, self.threads)
        inputs = {one.get_any_name(): _type(one) for one in self._model.inputs}
        outputs = [one.get_any_name() for one in self._model.outputs]
        _, output, self.dtypes = ports(inputs, outputs, content.where)
        self._output = outputs.index(output)

    @property
    def settings(self) -> dict[str, Any]:
        """Device, threads, precision, and the file's name where it has one."""
        return {
            "device": "cpu",
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
            found = self._model([samples])[self._output]
        except Exception as error:  # the library's errors have no other root
            raise RunError(f"OpenVINO failed: {printable(str(error))[:500]}") from error
        answers: NDArray[Any] = np.array(found, np.float32)
        return answers


@contextlib.contextmanager
def _nothing_kept() -> Iterator[None]:
    """While the library sets itself up: it keeps no compiled code for shapes.

    Otherwise it keeps some megabytes for each size of picture and of batch, for thousands of them:
    a server's memory would grow with whatever sizes strangers send. Its oneDNN asks the environment
    for this, once, when a first model is compiled; PyTorch has a oneDNN of its own, which must not
    hear.
    """
    before = os.environ.get(_CACHE)
    os.environ[_CACHE] = "0"
    try:
        yield
    finally:
        del os.environ[_CACHE]
        if before is not None:
            os.environ[_CACHE] = before


def _compiled(content: Content, threads: int) -> Any:
    """The library's hold on the model.

    Raises:
        RunError: it cannot be read, or computed.
    """
    openvino = openvino_library()
    settings = {
        "INFERENCE_NUM_THREADS": threads,
        # By default a processor that has bfloat16 computes in it, and answers otherwise.
        "INFERENCE_PRECISION_HINT": "f32",
        "EXECUTION_MODE_HINT": "ACCURACY",
        # Other programs may already be on the cores that threads would be bound to.
        "ENABLE_CPU_PINNING": False,
        "CPU_RUNTIME_CACHE_CAPACITY": "0",  # see `_nothing_kept`
    }
    try:
        core = openvino_core()
        if content.numbers is None:
            model = core.read_model(content.model)
        else:
            numbers = openvino.Tensor(np.frombuffer(content.numbers, np.uint8))
            model = core.read_model(content.model, numbers)
        return core.compile_model(model, "CPU", settings)
    except Exception as error:  # the library's errors have no other root
        why = printable(str(error))[:500]
        raise RunError(f"{content.where}: OpenVINO cannot read it: {why}", REMEDY) from error


def _type(port: Any) -> str:
    """NumPy's name of a port's type."""
    name = str(port.element_type.get_type_name())
    return _DTYPES.get(name, name)
