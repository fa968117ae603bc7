"""What a run depends on beside its state, and what of it has changed since. Floor 5, room verbs.

Each checkpoint holds the world it was made in. Going on in another one either makes no sense, and
is refused, or gives other last bits, and is warned of.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from neocog import machine
from neocog.errors import RunError
from neocog.settings import to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping

    from neocog.engine.job import Job
    from neocog.verbs.console import Console

__all__ = ["check", "describe"]

DECIDES = ("data", "classes", "settings")
"""What a run cannot go on without. A change of the rest moves last bits."""


def describe(job: Job) -> dict[str, Any]:
    """The world of a job: plain JSON values under dotted names.

    `data` and `classes` are what it learns, `settings.…` the resolved recipe; `code` is a print of
    this package's sources, then come versions, the machine and its threads.
    """
    return {
        "data": job.data.fingerprint,
        "classes": list(job.data.classes),
        **_flat(to_dict(job.recipe), "settings"),
        "code": _code(),
        **{f"version of {name}": version for name, version in machine.versions().items()},
        "device": str(machine.describe(job.device)["name"]),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": job.choice.threads,
    }


def check(
    before: Mapping[str, Any], now: Mapping[str, Any], *, anyway: bool, console: Console
) -> None:
    """Refuse or warn where the world has changed; what only one of both names is not compared.

    Args:
        before: of the checkpoint.
        now: of the job that would go on.
        anyway: warn of everything.
        console: where warnings go.

    Raises:
        RunError: with each thing that decides and has changed, and both values.
    """
    changed = [name for name in before if name in now and before[name] != now[name]]
    grave = [name for name in changed if name.partition(".")[0] in DECIDES]
    if grave and not anyway:
        raise RunError(
            "this is not what the run began with: "
            + "; ".join(_change(name, before, now) for name in grave),
            "bring it back, or go on with what is there now: neocog resume RUN --anyway",
        )
    for name in changed:
        effect = "as asked" if name in grave else "results may differ in their last bits"
        console.say(f"warning: {_change(name, before, now)}; going on, {effect}")


def _change(name: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What changed, short.

    >>> _change("threads", {"threads": 4}, {"threads": 2})
    'threads was 4, is 2'
    """
    was, now_is = (_short(world[name]) for world in (before, now))
    return f"{name} was {was}, is {now_is}"


def _short(value: object) -> str:
    """One value, at most some 60 characters of it."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 64 else f"{text[:60]} …"


def _flat(values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Nested settings under dotted names.

    >>> _flat({"optim": {"lr": 0.1}, "seed": 3}, "settings")
    {'settings.optim.lr': 0.1, 'settings.seed': 3}
    """
    found: dict[str, Any] = {}
    for key, value in values.items():
        inner = (
            _flat(value, f"{name}.{key}") if isinstance(value, dict) else {f"{name}.{key}": value}
        )
        found |= inner
    return found


def _code() -> str:
    """A print of all sources of this package."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent.parent
    for path in sorted(folder.rglob("*.py")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
