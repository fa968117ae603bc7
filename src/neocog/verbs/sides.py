"""Which runs stand on which side of a comparison. Floor 5, room verbs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from neocog.errors import ConfigError
from neocog.settings import to_dict

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neocog.run import Run

__all__ = ["flat", "grouped"]

ASIDE = (
    *("seed", "tensorboard", "checkpoint.", "engine.device", "engine.threads"),
    *("engine.compile", "engine.layout", "engine.precision", "engine.save_minutes"),
)
"""Settings in which runs of one recipe may differ: the seed, what each machine finds fastest, and
what is kept."""


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, Any]:
    """The settings of a recipe by their full names.

    >>> flat({"seed": 1, "optim": {"lr": 0.1}})
    {'seed': 1, 'optim.lr': 0.1}
    """
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, dict) and value:
            found |= flat(value, f"{above}{name}.")
        else:
            found[f"{above}{name}"] = value
    return found


def grouped(runs: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """Two runs as they come; more by their settings but for the seed, in the order of the runs.

    Raises:
        ConfigError: fewer than two runs, a run twice, or not two recipes.
    """
    places = [run.path.resolve() for run in runs]
    if len(runs) < 2 or len(set(places)) < len(places):
        raise ConfigError(
            f"expected two different runs at least, found {len(set(places))}",
            "neocog compare RUN RUN",
        )
    if len(runs) == 2:
        return [runs[0]], [runs[1]]
    groups: dict[str, list[Run]] = {}
    for run in runs:
        told = flat(to_dict(run.recipe)).items()
        settings = {name: value for name, value in told if not name.startswith(ASIDE)}
        groups.setdefault(repr(sorted(settings.items())), []).append(run)
    if len(groups) != 2:
        kinds = "one recipe" if len(groups) == 1 else f"{len(groups)} recipes"
        raise ConfigError(
            f"expected two runs, or runs of two recipes that differ in their seeds, found "
            f"{len(runs)} runs of {kinds}",
            "compare two of them: neocog compare RUN RUN",
        )
    a, b = groups.values()
    return a, b
