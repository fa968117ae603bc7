"""neocog: a workbench for convolutional networks. Design, train, understand, ship.

The facade: every name is loaded when it is first used, so that `import neocog` costs
milliseconds and no torch.

>>> import neocog
>>> run = neocog.fit("cnn", neocog.load("digits"))        # doctest: +SKIP
>>> run.scores["val"].metrics["accuracy"]                 # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neocog.bundle import Bundle
    from neocog.config import Recipe
    from neocog.data.dataset import Dataset
    from neocog.errors import NeocogError
    from neocog.facade import build, load
    from neocog.planning import Plan
    from neocog.run import Run
    from neocog.run import open_run as open
    from neocog.verbs.plan import plan
    from neocog.verbs.train import fit, resume

__version__ = "0.1.0"

_LAZY = {
    "Bundle": "neocog.bundle:Bundle",
    "Dataset": "neocog.data.dataset:Dataset",
    "NeocogError": "neocog.errors:NeocogError",
    "Plan": "neocog.planning:Plan",
    "Recipe": "neocog.config:Recipe",
    "Run": "neocog.run:Run",
    "build": "neocog.facade:build",
    "fit": "neocog.verbs.train:fit",
    "load": "neocog.facade:load",
    "open": "neocog.run:open_run",
    "plan": "neocog.verbs.plan:plan",
    "resume": "neocog.verbs.train:resume",
}

__all__ = [
    "Bundle",
    "Dataset",
    "NeocogError",
    "Plan",
    "Recipe",
    "Run",
    "__version__",
    "build",
    "fit",
    "load",
    "open",
    "plan",
    "resume",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'neocog' has no attribute {name!r}")
    module, _, attribute = _LAZY[name].partition(":")
    value = getattr(import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
