"""What suits a network, where nobody says otherwise. Floor 4; standard library only.

Some networks are known together with the way they are trained. Their settings lie below everything
that a file, an option or `--set` says.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Collection

    from neocog.config import Recipe

__all__ = ["USUAL", "under", "usual"]

USUAL: dict[str, dict[str, Any]] = {
    "speednet": {
        "optim": {"name": "muon", "normalize": True, "momentum": 0.6, "beside": 0.5},
        "schedule": {"name": "linear", "grow": 0.625, "grown": 0.65},
        "augment": {"alternate": True, "shift": 0.0625},
        "loss": {"label_smoothing": 0.2},
        "engine": {"views": "many"},
    },
}
"""Name of the network → sections of the recipe."""

_WHOLE = ("augment", "optim", "schedule")
"""Sections that are about the training of the whole network, not of its last layer alone."""


def usual(model: Any) -> dict[str, Any]:
    """The settings that belong to a network; empty for most.

    >>> usual("speednet")["optim"]["name"], usual("cnn")
    ('muon', {})
    """
    return copy.deepcopy(USUAL.get(model, {})) if isinstance(model, str) else {}


def under(recipe: Recipe, model: str, told: Collection[str] = (), kind: str = "class") -> Recipe:
    """The recipe for this network, with its usual settings below what was told.

    Settings of an optimiser go with its name: where another one was told, none of them is taken.

    Args:
        recipe: where a setting still has its default, the usual one takes its place.
        model: name of the network.
        told: settings that were named, by their dotted path; they stay even at their default.
        kind: of the targets; those that are numbers have no classes to smooth.

    >>> from neocog.config import OptimRecipe, Recipe
    >>> found = under(Recipe(optim=OptimRecipe(lr=0.5)), "speednet", {"schedule.name"})
    >>> found.model, found.optim.name, found.optim.lr, found.schedule.name
    ('speednet', 'muon', 0.5, 'onecycle')
    >>> under(Recipe(optim=OptimRecipe(name="nesterov")), "speednet").optim.momentum
    0.9
    """
    sections: dict[str, Any] = {"model": model}
    for name, settings in USUAL.get(model, {}).items():
        section: Any = getattr(recipe, name)
        plain = type(section)()

        def open_(key: str, name: str = name, section: Any = section, plain: Any = plain) -> bool:
            left = getattr(section, key) == getattr(plain, key)
            return left and f"{name}.{key}" not in told

        if name == "optim" and not open_("name") and section.name != settings["name"]:
            continue
        if name == "loss" and kind == "numbers":
            continue
        if name in _WHOLE and recipe.transfer.freeze == "all":
            continue
        changes = {key: value for key, value in settings.items() if open_(key)}
        sections[name] = dataclasses.replace(section, **changes)
    return dataclasses.replace(recipe, **sections)
