"""What this computer can do. Floor 1; imports floor 0 and torch."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import torch

from neocog.errors import ConfigError
from neocog.host import cores

__all__ = ["describe", "device_named", "free_bytes", "multiplies_bf16", "versions"]


def device_named(name: str) -> torch.device:
    """The device that a name means; `auto` is cuda, then mps, then cpu.

    Raises:
        ConfigError: an unknown name, or a device that this machine lacks.

    >>> device_named("cpu")
    device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        if torch.backends.mps.is_available():
            return torch.device("mps")
        return torch.device("cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            f"{name!r} is no device", "known: auto, cpu, cuda, cuda:N, mps"
        ) from error
    present = {
        "cpu": True,
        "cuda": torch.cuda.is_available() and (device.index or 0) < torch.cuda.device_count(),
        "mps": torch.backends.mps.is_available(),
    }
    if not present.get(device.type, False):
        raise ConfigError(
            f"this machine has no {name} device", "leave --device out to take the best"
        )
    return device


def multiplies_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for bfloat16.

    A processor without AVX-512 has none: PyTorch then multiplies number by number, in ResNet-18 on
    two cores a second for each picture of a step, minutes for the first one.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return True
    if platform.machine() in ("x86_64", "AMD64"):  # PyTorch's own kernels may be held to less
        wide = torch.backends.cpu.get_cpu_capability().startswith("AVX512")
    else:
        wide = True
    return wide and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _processor() -> str:
    """The processor's name as people know it."""
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def describe(device: torch.device) -> dict[str, str | int]:
    """Kind, name, threads and system, for the manifest."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else _processor()
    return {
        "kind": device.type,
        "name": name,
        "threads": torch.get_num_threads(),
        "cores": cores(),
        "system": f"{platform.system()} {platform.machine()}",
    }


def versions() -> dict[str, str]:
    """Versions of what decides a result."""
    found = {"python": platform.python_version()}
    for package in ("neocog", "torch", "numpy", "pillow", "safetensors"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def free_bytes(device: torch.device) -> int | None:
    """Memory that is free for tensors now; None where the system does not say.

    On a processor what Linux calls available, or what is left of the container's limit, if that is
    less.
    """
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    if device.type != "cpu":
        return None
    found = []
    try:
        for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) << 10)
    except (OSError, ValueError):
        return None
    for root in (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")):
        for limit, used in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            try:
                found.append(int((root / limit).read_text()) - int((root / used).read_text()))
            except (OSError, ValueError):  # not this kind, or "max"
                continue
    return max(0, min(found)) if found else None
