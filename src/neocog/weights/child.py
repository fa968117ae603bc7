"""The process that opens a pickle: standard input → a safetensors file. Floor 1, room weights.

Imports floor 0; torch once the network is out of reach. Four walls, each of which would do alone
against what is known: PyTorch's own unpickler for weights, which knows tensors and plain values and
calls nothing else; no network, where Linux allows to leave it; limits of memory, processor time and
file size; and an audit hook, which ends the process at the first event that reading tensors does
not need. Code that is already running natively can pass the last one, but not the others.

What is promised everywhere: the process ends at its first attempt, from Python, to reach the
network. That there is none to reach is promised only where `leave_network` gives True, which most
containers, some Linux systems, macOS and Windows do not allow. Reading goes on without that wall:
the unpickler runs no code that could pass the hook.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from neocog.weights.header import DTYPES

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["KEYS", "confine", "leave_network", "main", "plain", "state_dict"]

KEYS = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "network",
    "net",
    "module",
    "weights",
    "params",
)
"""Where a state dict lies in what trainers save; the first that holds a mapping is entered."""

_DEEPEST = 4
_MOST_LEFT = 1000
_NEWNET, _NEWUSER = 0x40000000, 0x10000000
_FAMILIES = tuple(
    f"{family}."
    for family in (
        *("socket", "urllib", "http", "ftplib", "smtplib", "poplib", "imaplib", "nntplib"),
        *("subprocess", "os", "shutil", "pty", "signal", "webbrowser", "telnetlib"),
        *("ctypes", "mmap", "fcntl", "msvcrt", "resource", "sqlite3", "winreg"),
    )
)
_HARMLESS = ("os.listdir", "os.scandir", "os.walk", "os.fwalk")
_WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND


def leave_network() -> bool:
    """Go where there is no network; False where the system does not allow it, and the hook of
    `confine` alone keeps the process from it.

    Called before torch is loaded: who is not root needs a user namespace for it, which only a
    process of one thread may enter.
    """
    if sys.platform != "linux":
        return False
    import ctypes

    unshare = ctypes.CDLL(None, use_errno=True).unshare
    return bool(unshare(_NEWNET) == 0 or unshare(_NEWUSER | _NEWNET) == 0)


def confine(seconds: float, memory: int, output: int) -> None:
    """Take from this process, for good, what reading tensors does not need.

    Args:
        seconds: of processor time from now.
        memory: bytes of address space from now; Linux only.
        output: bytes of any file that it writes. Python code may open none for writing at all;
            the safetensors library, which is none, writes the one.
    """
    if sys.platform != "win32":
        import resource

        used = time.process_time()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (int(used + seconds) + 1, int(used + seconds) + 5))
        resource.setrlimit(resource.RLIMIT_FSIZE, (output, output))
        if sys.platform == "linux":
            with open("/proc/self/statm") as file:  # noqa: PTH123 - nothing else is loaded for it
                pages = int(file.read().split()[0])
            most = pages * resource.getpagesize() + memory
            resource.setrlimit(resource.RLIMIT_AS, (most, most))
    sys.addaudithook(_watch)


def _watch(event: str, args: tuple[Any, ...]) -> None:
    """End the process at an event that reading tensors does not need."""
    if event == "open":
        refused = bool(args[2] & _WRITING) if isinstance(args[2], int) else True
    else:
        refused = event.startswith(_FAMILIES) and event not in _HARMLESS
    if refused:
        # Not an exception, which whoever tried could catch.
        what = f"{event} {args[0]!r:.80}" if args else event
        os.write(2, f"\nit tried to do more than hold tensors: {what}\n".encode(errors="replace"))
        os._exit(1)


def main(setting: str) -> None:
    """The child program: reads standard input, writes the file that the setting names.

    Its last line on standard error says why it could not.
    """
    leave_network()
    out, seconds, memory, output = json.loads(setting)
    warnings.simplefilter("ignore")
    import io

    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    # Whatever PyTorch loads and starts for its first file, it does now, while it still may.
    first = io.BytesIO()
    torch.save({"w": torch.zeros(1)}, first)
    torch.load(io.BytesIO(first.getvalue()), map_location="cpu", weights_only=True)
    confine(seconds, memory, output + 2**20)
    try:
        loaded = torch.load(sys.stdin.buffer, map_location="cpu", weights_only=True)
        found, under, left = state_dict(loaded)
        tensors = plain(found, output)
        told = json.dumps([under, left[:_MOST_LEFT]])
        save_file(tensors, out, metadata={"neocog": told})
    except Exception as error:  # noqa: BLE001 - whatever it is, it ends here and is told
        sys.exit(_words(error, memory))


def state_dict(loaded: Any) -> tuple[dict[str, Tensor], str, list[str]]:
    """The tensors in what a trainer saved; the rule stands at `neocog.weights.contents`.

    Returns:
        Tensors by name, the keys that led to them joined by dots, and what else lay on the way.

    Raises:
        ValueError: no mapping, or none with tensors.
    """
    import torch

    under: list[str] = []
    left: list[str] = []
    inside = loaded
    for _ in range(_DEEPEST):
        if not isinstance(inside, Mapping):
            raise ValueError(f"expected tensors by name, found {_describe(inside)}")
        key = next((key for key in KEYS if isinstance(inside.get(key), Mapping)), None)
        if key is None:
            break
        left += [_line(under, name, value) for name, value in inside.items() if name != key]
        under.append(key)
        inside = inside[key]
    found = {name: value for name, value in inside.items() if isinstance(value, torch.Tensor)}
    if not found:
        listed = ", ".join(_line([], name, value) for name, value in list(inside.items())[:20])
        raise ValueError(
            "expected tensors by name, at the top or under "
            f"{', '.join(KEYS)}; found {listed or 'nothing'}"
        )
    left += [_line(under, name, value) for name, value in inside.items() if name not in found]
    return found, ".".join(under), left


def _line(under: list[str], name: Any, value: Any) -> str:
    return f"{'.'.join([*under, f'{name!s:.100}'])}: {_describe(value)}"


def _describe(value: Any) -> str:
    """What it is, not what it says: a text may be of any length."""
    kind = type(value).__name__
    return f"{kind} of {len(value)}" if isinstance(value, Mapping | list | tuple) else kind


def plain(found: Mapping[Any, Tensor], output: int) -> dict[str, Tensor]:
    """The tensors contiguous, each with memory of its own, as safetensors wants them.

    Raises:
        ValueError: one that safetensors cannot hold, or more bytes than allowed.
    """
    import torch

    known = [name for name, _ in DTYPES.values()]
    total = 0
    for name, value in found.items():
        if not _can_name(name):
            raise ValueError(f"{name!r:.100} cannot name a tensor: expected text")
        dense = value.layout == torch.strided and not value.is_quantized and not value.is_nested
        kind = str(value.dtype).removeprefix("torch.") if dense else "sparse or quantised"
        if kind not in known or value.device.type != "cpu":
            kind = kind if value.device.type == "cpu" else f"{value.device.type} {kind}"
            raise ValueError(f"{name} is a {kind} tensor, expected one of {', '.join(known)}")
        total += value.numel() * value.element_size()
    if total > output:
        raise ValueError(f"its tensors unfold to {total:,} bytes, {output:,} are allowed")
    owned: dict[str, Tensor] = {}
    places: set[int] = set()
    for name, value in found.items():
        one = value.detach().resolve_conj().resolve_neg().contiguous()
        place = one.untyped_storage().data_ptr()
        owned[name] = one.clone() if place in places else one
        places.add(place)
    return owned


def _can_name(name: Any) -> bool:
    """Whether a safetensors header can have this name."""
    if not isinstance(name, str) or name == "__metadata__":
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _words(error: Exception, memory: int) -> str:
    """An error in one line, without the advice to switch the protection off."""
    text = str(error)
    if isinstance(error, MemoryError) or re.search("allocate memory|bad_alloc|memory alloc", text):
        return f"it needs more memory than the {memory:,} bytes that it may use"
    called = re.search(r"GLOBAL (\S+)", text)
    if called:
        return f"it holds more than data: {called[1]:.100}, which would have to be run"
    if "TorchScript" in text:
        return "it is a TorchScript program, which would have to be run"
    if isinstance(error, ValueError):
        return " ".join(text.split())
    lines = [
        line.strip() for line in text.splitlines() if not re.search("weights_only|file an", line)
    ]
    reason = next(filter(None, lines), type(error).__name__).partition(". ")[0]
    return f"it is damaged, or no PyTorch file: {reason:.200}"
