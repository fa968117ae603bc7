"""What the command line of `train` says, as a recipe. Floor 5; loads no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from neocog.errors import ConfigError

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["PLACES", "recipe_of", "share"]

PLACES = {
    "task": "task",
    "model": "model",
    "seed": "seed",
    "epochs": "engine.epochs",
    "minutes": "engine.minutes",
    "batch": "engine.batch",
    "device": "engine.device",
    "precision": "engine.precision",
    "lr": "optim.lr",
    "val": "data.val",
    "test": "data.test",
    "max_bad": "data.max_bad",
    "strict": "data.strict",
    "origin": "transfer.source",
    "freeze": "transfer.freeze",
}
"""Where an option lives in the recipe."""


def recipe_of(
    source: str | None, config: Path | None, settings: tuple[str, ...], options: dict[str, Any]
) -> tuple[Any, set[str]]:
    """Defaults, then the file, then options, then `--set`; and what of it was told."""
    from neocog.config import Recipe
    from neocog.models import catalog
    from neocog.settings import apply_settings, from_dict, load_file, paths, place, to_dict

    values = load_file(config) if config else {}
    told = values.get("model")
    if options["model"] not in (None, told):
        values.pop("model_args", None)  # they belong to the file's network
    # A manifest tells everything: what its version did not know had its default then.
    whole = paths(to_dict(Recipe())) if config and config.suffix == ".json" else set()
    if source is not None:
        values = place(values, "data.source", source)
    elif not values.get("data", {}).get("source"):
        raise click.UsageError("what to train on? For a first try: neocog train digits")
    for option, path in PLACES.items():
        value = options[option]
        if option == "val" and value is not None:
            value = share(value)
        if option == "freeze" and value is not None:
            value = int(value) if value.isdecimal() else value
        if value is not None:
            values = place(values, path, value)
    values = apply_settings(values, settings)
    model = values.get("model")
    named = options["model"] or any(one.partition("=")[0].strip() == "model" for one in settings)
    if isinstance(model, str) and catalog.is_foreign(model) and model == told and not named:
        # A file that came with a mail must not choose what code runs here.
        raise ConfigError(
            f"{config} names a network from outside neocog: {model}",
            f"if you trust that code, say so: --model {model}",
        )
    return from_dict(Recipe, _one_length(values, options, settings)), paths(values) | whole


def _one_length(
    values: dict[str, Any], options: dict[str, Any], settings: tuple[str, ...]
) -> dict[str, Any]:
    """The command line's `--epochs` puts out a file's `minutes`, and the other way round."""
    from neocog.settings import place

    named = {name for name in ("epochs", "minutes") if options[name] is not None}
    named |= {
        name
        for name in ("epochs", "minutes")
        for one in settings
        if one.partition("=")[0].strip() == f"engine.{name}"
    }
    if len(named) != 1:
        return values
    other = ({"epochs", "minutes"} - named).pop()
    return place(values, f"engine.{other}", None)


def share(text: str) -> float | str:
    """A share where it is a number, else a source."""
    try:
        return float(text)
    except ValueError:
        return text
