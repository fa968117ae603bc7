"""What a run depends on beside its state, and what of it has changed since. Floor 5, room verbs.

Each checkpoint holds the world it was made in. Going on in another one either makes no sense, and
is refused, or gives other last bits, and is warned of.
"""

from __future__ import annotations

import contextlib
import hashlib
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from neocog import machine
from neocog.errors import RunError
from neocog.settings import to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from torch import nn

    from neocog.engine.control import Callback
    from neocog.engine.job import Job
    from neocog.verbs.console import Console

__all__ = ["check", "describe"]

DECIDES = ("data", "classes", "settings", "callbacks")
"""What a run cannot go on without. A change of the rest moves last bits."""
PLACES = {"settings.data.source", "settings.data.test"}
"""Where the data lay; `data` says whether it is the same."""


def describe(job: Job, callbacks: Sequence[Callback] = ()) -> dict[str, Any]:
    """The world of a job: plain JSON values under dotted names.

    Args:
        job: what is trained on what.
        callbacks: of the caller; those of the recipe stand in its settings.

    `data` and `classes` are what it learns, `settings.…` the resolved recipe; `code` is a print of
    this package's sources, then come versions, the machine and its threads.
    """
    return {
        "data": job.data.fingerprint,
        "classes": list(job.data.classes),
        **_flat(to_dict(job.recipe), "settings"),
        "callbacks": [getattr(one, "__name__", type(one).__name__) for one in callbacks],
        "code": _code(job.network),
        **{f"version of {name}": version for name, version in machine.versions().items()},
        "device": str(machine.describe(job.device)["name"]),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": job.choice.threads,
    }


def check(
    before: Mapping[str, Any],
    now: Mapping[str, Any],
    *,
    run: str,
    anyway: bool,
    console: Console,
) -> None:
    """Refuse or warn where the world has changed; what only one of both names is not compared.

    Args:
        before: of the checkpoint.
        now: of the job that would go on.
        run: its folder, for the error.
        anyway: warn of everything.
        console: where warnings go.

    Raises:
        RunError: with each thing that decides and has changed, and both values.
    """
    changed = [
        name for name in before if name in now and before[name] != now[name] and name not in PLACES
    ]
    grave = [name for name in changed if name.partition(".")[0] in DECIDES]
    if grave and not anyway:
        raise RunError(
            "this is not what the run began with: "
            + "; ".join(_change(name, before, now) for name in grave),
            f"bring it back, or go on with what is there now: neocog resume {run} --anyway",
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
    """One value, at most 40 characters of it."""
    text = ", ".join(map(str, value)) if isinstance(value, list) else str(value)
    return text if len(text) <= 40 else f"{text[:38]} …"


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


def _code(network: nn.Module) -> str:
    """A print of all sources of this package, and of the modules of a network from elsewhere."""
    digest = hashlib.sha256()
    folder = Path(__file__).parent.parent
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*.py")}
    for kind in {type(part) for part in network.modules()}:
        if kind.__module__.partition(".")[0] not in ("torch", "neocog"):
            with contextlib.suppress(TypeError, OSError):  # typed in by hand: there is no file
                files[f"{kind.__module__} {kind.__qualname__}"] = Path(inspect.getfile(kind))
    for name, path in sorted(files.items()):
        digest.update(name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:12]
