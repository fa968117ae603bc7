"""Verbs that look at data. Room cli; floor 6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from neocog.argv import share
from neocog.cli.group import Verbs, bad_options, json_option, print_result

__all__ = ["data"]


@click.group(cls=Verbs)
def data() -> None:
    """Look at data before training on it."""


def _data_options(command: Any) -> Any:
    for option in (
        click.option("--val", default="0.1", help="A share, or a source.", show_default=True),
        click.option("--test", default="", help="A source."),
        click.option("--seed", default=0, help="Decides what a share takes.", show_default=True),
        click.option(
            "--set", "settings", multiple=True, metavar="KEY=VALUE", help="data.size=64,64"
        ),
        click.argument("source"),
        bad_options,
    ):
        command = option(command)
    return json_option(command)


def _recipe(
    *,
    source: str,
    val: str,
    test: str,
    seed: int,
    settings: tuple[str, ...],
    max_bad: float | None,
    strict: bool | None,
) -> Any:
    """What the options of `_data_options` say."""
    from neocog.config import Recipe
    from neocog.settings import apply_settings, from_dict

    values: dict[str, Any] = {"source": source, "val": share(val), "test": test}
    told = {"max_bad": max_bad, "strict": strict}
    values |= {name: value for name, value in told.items() if value is not None}
    return from_dict(Recipe, apply_settings({"data": values, "seed": seed}, settings))


@data.command(name="scan")
@click.argument("source")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path("faults.jsonl"),
    help="The fault report, one JSON line each.",
    show_default=True,
)
@click.option("--minimum-side", default=1, help="Skip smaller pictures.", show_default=True)
@click.option(
    "--dims",
    type=click.IntRange(1, 3),
    help="1 for signals, 2 for pictures, 3 for volumes in an .npz.  [what it says, else 2]",
)
@click.option(
    "--ignore",
    type=click.IntRange(0, 255),
    help="Masks: a number that stands for no label, beside 255.",
)
@bad_options
@json_option
def data_scan(
    source: str,
    out: Path,
    minimum_side: int,
    dims: int | None,
    ignore: int | None,
    max_bad: float | None,
    strict: bool | None,
    as_json: bool,
) -> None:
    """Look at every sample of SOURCE and report what is wrong.

    With --max-bad or --strict it fails, after the report is written, where training would.
    """
    from neocog.verbs.console import Console
    from neocog.verbs.data import scan_source

    with Console() as console:
        result = scan_source(
            source,
            out=out,
            minimum_side=minimum_side,
            dims=dims,
            ignore=ignore,
            max_bad=max_bad,
            strict=bool(strict),
            console=console,
        )
    print_result(result, as_json)


@data.command(name="pack")
@_data_options
def data_pack(as_json: bool, **told: Any) -> None:
    """Decode SOURCE once into the cache."""
    from neocog.verbs.console import Console
    from neocog.verbs.data import pack

    recipe = _recipe(**told)
    with Console() as console:
        result = pack(recipe.data, seed=recipe.seed, console=console)
    print_result(result, as_json)


@data.command(name="show")
@_data_options
def data_show(as_json: bool, **told: Any) -> None:
    """Parts, classes and sizes of SOURCE."""
    from neocog.verbs.console import Console
    from neocog.verbs.data import show

    recipe = _recipe(**told)
    with Console() as console:
        result = show(recipe.data, seed=recipe.seed, console=console)
    print_result(result, as_json)


@data.command(name="check")
@_data_options
@click.option(
    "--folds",
    type=click.IntRange(min=0),
    default=5,
    help="Networks that judge labels, each without a part of the pictures; 0: none.",
    show_default=True,
)
@click.option("--minutes", type=float, help="What it may take.  [as long as short trainings take]")
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for audit.html and suspects.csv.  [NAME-check here]",
)
def data_check(
    folds: int, minutes: float | None, out: Path | None, as_json: bool, **told: Any
) -> None:
    """Look for copies, leaks, labels that are probably wrong and missing classes in SOURCE.

    Labels are judged by networks that have not seen the picture: --folds of them are trained, each
    without one part. The page shows the pictures; the table lists every doubtful label.
    """
    from neocog.verbs.audit import audit
    from neocog.verbs.console import Console

    recipe = _recipe(**told)
    folder = out or Path(f"{Path(recipe.data.source).name or 'data'}-check")
    with Console() as console:
        result = audit(recipe, folds=folds, minutes=minutes, out=folder, console=console)
    print_result(result, as_json)
