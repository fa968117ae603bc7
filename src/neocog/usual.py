"""What suits a network, where nobody says otherwise. Floor 4; standard library only.

Some networks are known together with the way they are trained. Their settings lie below everything
that a file, an option or `--set` says.
"""

from __future__ import annotations

import copy
from typing import Any

__all__ = ["USUAL", "usual"]

USUAL: dict[str, dict[str, Any]] = {
    "speednet": {
        "optim": {"name": "muon", "lr": 0.02, "momentum": 0.6, "weight_decay": 0.05},
        "schedule": {"name": "linear"},
        "augment": {"alternate": True},
        "loss": {"label_smoothing": 0.2},
    },
}
"""Name of the network → sections of the recipe."""


def usual(model: Any) -> dict[str, Any]:
    """The settings that belong to a network; empty for most.

    >>> usual("speednet")["optim"]["name"], usual("cnn")
    ('muon', {})
    """
    return copy.deepcopy(USUAL.get(model, {})) if isinstance(model, str) else {}
