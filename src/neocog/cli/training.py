"""Verbs that train a network and use it. Room cli; floor 6."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from neocog.argv import recipe_of
from neocog.cli.group import bad_options, device_options, json_option, print_json, print_result
from neocog.host import born

if TYPE_CHECKING:
    from neocog.verbs.choice import Choice
    from neocog.verbs.console import Console

__all__ = ["evaluate", "predict", "resume", "train"]


@click.command()
@click.argument("source", required=False)
@click.option("--task", help="auto, classify, multilabel, regress or segment.  [auto]")
@click.option(
    "--model",
    help="A name of `neocog models`, package.module:factory, or a network in a line: "
    '"conv 32 3; relu; pool 2; linear".  [auto]',
)
@click.option("--epochs", type=int, help="Passes over the training part.  [from the data]")
@click.option(
    "--minutes",
    type=float,
    help="Length of the whole run, instead of --epochs; chooses the network, too.",
)
@click.option("--batch", type=int, help="Images a step.  [from the data]")
@click.option("--lr", type=float, help="Peak learning rate.  [the optimiser's usual one]")
@click.option("--seed", type=int, help="Decides everything random.  [0]")
@click.option("--val", help="Validation part: a share, or a source.  [0.1]")
@click.option("--test", help="Test part: a source.")
@click.option(
    "--from", "origin", help="Begin with what a run, a file of weights, or timm:NAME has learnt."
)
@click.option(
    "--freeze",
    metavar="N|all",
    help="Stages that keep it, from the picture on; all: everything but the last layer and what "
    "is fresh.",
)
@bad_options
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.  [auto]")
@click.option("--precision", help="auto, fp32, bf16 or fp16.  [auto]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [runs/…]")
@click.option(
    "--config", type=click.Path(path_type=Path), help="A TOML file, or a run's manifest.json."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting: optim.name=sgd."
)
@json_option
def train(
    source: str | None,
    config: Path | None,
    settings: tuple[str, ...],
    out: Path | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Train a network on SOURCE and report how good it is.

    SOURCE is a folder of class folders (or train/ val/ test/ above them), a folder of pictures and
    masks, an archive of one, IDX files, CIFAR binaries, an .npz or .csv file, or a name: digits,
    mnist, fashion-mnist, kmnist, cifar10, cifar100.
    """
    recipe, told = recipe_of(source, config, settings, options)
    from neocog.verbs.console import Console
    from neocog.verbs.train import train as run_training

    with Console() as console:
        run = run_training(
            recipe,
            out=out,
            argv=("neocog", *sys.argv[1:]),
            console=console,
            began=born(),
            told=told,
        )
    if as_json:
        print_json(run.summary)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--model", default="", help="Names a foreign factory again, which is then run.")
@click.option(
    "--anyway", is_flag=True, help="Go on although its data, classes or settings have changed."
)
@json_option
def resume(run: Path, model: str, anyway: bool, as_json: bool) -> None:
    """Go on with RUN from its last checkpoint, as if it had never stopped."""
    from neocog.verbs.console import Console
    from neocog.verbs.train import resume as go_on

    with Console() as console:
        result = go_on(run, console=console, model=model, anyway=anyway, began=born())
    if as_json:
        print_json(result.summary)


@click.command(name="eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("source", default="")
@device_options
@json_option
def evaluate(run: Path, source: str, device: str, model: str, as_json: bool) -> None:
    """Score RUN on its own data again, or on SOURCE."""
    from neocog.verbs.console import Console
    from neocog.verbs.evaluate import evaluate as score

    with Console() as console:
        result = score(run, source, device=device, model=model, console=console)
    print_result(result, as_json)


@click.command()
@click.argument("run", metavar="RUN|FILE", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@device_options
@click.option(
    "--engine",
    default="auto",
    help="torch, onnxruntime, openvino, or auto: torch for a few pictures, then the fastest here.",
    show_default=True,
)
@click.option("--threads", type=int, default=0, help="Of the processor.  [all]")
@click.option(
    "--to",
    type=click.Path(path_type=Path),
    help="Write a table, .csv or .parquet, row by row; the same command goes on after a stop.",
)
@click.option("--all", "each", is_flag=True, help="With --to: a column for each class.")
@click.option("--again", is_flag=True, help="With --to: begin the table anew.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for masks.  [RUN/predictions]")
@click.option("--overlay", is_flag=True, help="Also lay masks over their pictures.")
@json_option
def predict(
    run: Path,
    images: tuple[str, ...],
    to: Path | None,
    each: bool,
    again: bool,
    out: Path | None,
    overlay: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Answer for IMAGES, files or folders of them, and for every sample of .npz and .npy files.

    RUN is a run folder, FILE an exported .onnx or OpenVINO .xml. Where each pixel is answered for,
    masks are written as PNGs of class numbers; beside a table only where --out names their folder.
    """
    if to is None and (each or again):
        raise click.UsageError("--all and --again are about a table: name one with --to")
    from neocog.verbs.choice import Choice
    from neocog.verbs.console import Console

    choice = Choice(path=run, **options)
    with Console() as console:
        if to is None:
            _predict(choice, images, out, overlay, as_json, console)
            return
        from neocog.verbs.answers import Wanted, tell
        from neocog.verbs.predict import table

        wanted = Wanted(to=to, sources=images, each=each, out=out, overlay=overlay, again=again)
        summary = table(choice, wanted, console=console)
    if as_json:
        print_json(summary)
    else:
        click.echo(tell(summary))
    if summary["found"] and not summary["used"]:
        sys.exit(1)


def _predict(
    choice: Choice,
    images: tuple[str, ...],
    out: Path | None,
    overlay: bool,
    as_json: bool,
    console: Console,
) -> None:
    """Answers to standard output; exit code 1 where a file cannot be read."""
    from neocog.verbs.predict import lines
    from neocog.verbs.predict import predict as answer

    entries = answer(choice, images, out=out, overlay=overlay, console=console)
    if as_json:
        print_json(entries)
    else:
        for line in lines(entries):
            click.echo(line)
    if any("error" in entry for entry in entries):
        sys.exit(1)
