"""How long a network takes on this machine. Floor 4, room planning; imports analysis, machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import TYPE_CHECKING

import torch

from neocog import machine
from neocog.analysis import clock
from neocog.analysis.profile import Profile, bound, estimate, measure_profile
from neocog.data.cache import cache_dir
from neocog.errors import NeocogError
from neocog.files import read_json, write_json
from neocog.host import Watch, believed
from neocog.planning.nouns import Range

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from neocog.analysis.profile import Estimate
    from neocog.analysis.step import Step, Use
    from neocog.analysis.summary import Layer
    from neocog.planning.nouns import How

__all__ = ["Times", "known_profile", "machine_profile"]


class Times:
    """Seconds of a step and of an answer, with what they are made of.

    Args:
        how: device, precision and layout.
        step: of training.
        use: an answer to one sample.
        measure: time every distinct operation, instead of reading all off the profile.
    """

    def __init__(self, how: How, step: Step, use: Use, *, measure: bool) -> None:
        self._profile, self.busy = _profile(how)
        measured = None
        if measure:
            works = [work for _, work in (*step.work, *use.work)]
            measured = clock.replay(works, torch.device(how.device)).seconds
        self.step = _range(estimate(step, self._profile, measured))
        """Of a training step."""
        self.use = _range(estimate(use, self._profile, measured))
        """Of an answer."""

    def bounds(self, layers: Sequence[Layer], step: Step) -> tuple[str, ...]:
        """What each layer waits for in the forward pass of a step; empty for those that do not run
        in training."""
        return tuple(
            bound(step.heaviest[layer.path], self._profile) if layer.path in step.heaviest else ""
            for layer in layers
        )


def _range(found: Estimate) -> Range:
    return Range(value=found.value, low=found.low, high=found.high)


def known_profile(how: How) -> Profile | None:
    """What this machine does, where it was measured before, and nobody disturbed that."""
    known = _recall(_file(how))
    return known[0] if known else None


def machine_profile(how: How) -> Profile:
    """What this machine does, measured once for each precision and layout, then remembered."""
    return _profile(how)[0]


def _profile(how: How) -> tuple[Profile, float]:
    """What this machine does, and how many processors others kept busy when that was measured."""
    file = _file(how)
    known = _recall(file)
    if known is not None:
        return known
    watch = Watch()
    found = measure_profile(
        torch.device(how.device), precision=how.precision, channels_last=how.channels_last
    )
    busy = watch.others() or 0.0
    # A cache that cannot be written costs some seconds the next time.
    with contextlib.suppress(OSError, NeocogError):
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"profile": found.to_dict(), "busy": busy, "at": time.time()})
    return found, busy


def _file(how: How) -> Path:
    """Where the profile of this machine, precision and layout is kept."""
    facts = {
        **machine.describe(torch.device(how.device)),
        "torch": torch.__version__,
        "isa": torch.backends.cpu.get_cpu_capability(),
        "how": [how.precision, how.channels_last],
        "form": 2,
    }
    name = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:20]
    return cache_dir() / "profiles" / f"{name}.json"


def _recall(file: Path) -> tuple[Profile, float] | None:
    """What was kept; None where there is nothing that can be used, or not any more."""
    try:
        kept = read_json(file)
        busy, at = float(kept["busy"]), float(kept["at"])
        return (Profile.from_dict(kept["profile"]), busy) if believed(busy, at) else None
    except (OSError, NeocogError, KeyError, TypeError, ValueError):
        return None
