"""What this computer can do. Floor 1; imports floor 0 and torch."""

from __future__ import annotations

import platform
from importlib import metadata
from pathlib import Path

import torch

from neocog.errors import ConfigError
from neocog.host import cores

__all__ = ["describe", "device_named", "versions"]


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
