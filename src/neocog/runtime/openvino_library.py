"""OpenVINO's Python library, without its telemetry. Floor 3, room runtime; imports floor 0.

`import openvino` reports to Google Analytics that it was imported, unless whoever uses the machine
has opted out, and writes an identifier into the home folder. It does so through a package of its
own, `openvino_telemetry`, and through a stub that does nothing where that is not installed.
"""

from __future__ import annotations

import functools
import sys
import threading
from typing import Any

from neocog.errors import ConfigError

__all__ = ["openvino_core", "openvino_library"]

_TELEMETRY = "openvino_telemetry"
_ABSENT: Any = None
"""In `sys.modules`: what is imported under that name is not found."""
_LOCK = threading.RLock()


def openvino_library() -> Any:
    """The module `openvino`, imported so that nothing is sent or written.

    Where a program has imported it before, that was not ours to prevent.

    Raises:
        ConfigError: it is not installed.
    """
    with _LOCK:
        before = sys.modules.get(_TELEMETRY)
        sys.modules[_TELEMETRY] = _ABSENT
        try:
            import openvino
        except ImportError as error:
            raise ConfigError(
                f"OpenVINO cannot be imported: {error}", 'pip install "neocog[openvino]"'
            ) from error
        finally:
            del sys.modules[_TELEMETRY]
            if before is not None:
                sys.modules[_TELEMETRY] = before
    return openvino


def openvino_core() -> Any:
    """The one `openvino.Core` of this process, which lives as long as the process does.

    The first model that a core compiles gives the thread a stack of the library's own for handlers
    of signals (`sigaltstack(2)`), and the end of the core takes its memory away. Of two cores, the
    end of the older one leaves the thread with a stack that is no memory any more, as does an end
    in another thread: the next signal, were it Ctrl-C, is then a segmentation fault.

    Raises:
        ConfigError: OpenVINO is not installed.
    """
    with _LOCK:
        return _core()


@functools.cache
def _core() -> Any:
    return openvino_library().Core()
