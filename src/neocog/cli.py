"""The command line: argv ↔ recipe. Floor 6; verbs are imported when they are used.

Every verb takes `--json`: one JSON value on standard output, everything else on standard error.
Exit codes: 0 done, 1 failed, 2 used wrongly.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from neocog import __version__
from neocog.argv import recipe_of, share
from neocog.errors import ConfigError, NeocogError, near
from neocog.host import born, wait_patiently

__all__ = ["main"]


class _Verbs(click.Group):
    """A group that suggests the near verb, and whose errors teach."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Click's own, with a hint."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = near(args[0], self.commands)
            raise click.UsageError(f"no verb {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


def _json_option(command: Any) -> Any:
    return click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")(
        command
    )


def _print_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def _print_result(result: Any, as_json: bool) -> None:
    """A verb's result on standard output: for programs or for people."""
    if as_json:
        _print_json(result.json)
    else:
        click.echo("\n".join(result.lines))


@click.group(
    cls=_Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="neocog")
def cli() -> None:
    """A workbench for convolutional networks: design, train, understand, ship.

    Start with:  neocog train digits
    """


def _bad_options(command: Any) -> Any:
    """How much that is wrong with samples a data set may have."""
    for option in (
        click.option(
            "--strict", is_flag=True, default=None, help="Refuse the data at the first bad sample."
        ),
        click.option("--max-bad", type=float, help="Share of the samples that may be bad.  [0.01]"),
    ):
        command = option(command)
    return command


@cli.command()
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
@_bad_options
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.  [auto]")
@click.option("--precision", help="auto, fp32, bf16 or fp16.  [auto]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder of the run.  [runs/…]")
@click.option(
    "--config", type=click.Path(path_type=Path), help="A TOML file, or a run's manifest.json."
)
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="Any setting: optim.name=sgd."
)
@_json_option
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
        _print_json(run.summary)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--model", default="", help="Names a foreign factory again, which is then run.")
@click.option(
    "--anyway", is_flag=True, help="Go on although its data, classes or settings have changed."
)
@_json_option
def resume(run: Path, model: str, anyway: bool, as_json: bool) -> None:
    """Go on with RUN from its last checkpoint, as if it had never stopped."""
    from neocog.verbs.console import Console
    from neocog.verbs.train import resume as go_on

    with Console() as console:
        result = go_on(run, console=console, model=model, anyway=anyway, began=born())
    if as_json:
        _print_json(result.summary)


@cli.command(name="eval")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("source", default="")
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.", show_default=True)
@click.option("--model", default="", help="Names a foreign factory again, which is then run.")
@_json_option
def evaluate(run: Path, source: str, device: str, model: str, as_json: bool) -> None:
    """Score RUN on its own data again, or on SOURCE."""
    from neocog.verbs.console import Console
    from neocog.verbs.evaluate import evaluate as score

    with Console() as console:
        result = score(run, source, device=device, model=model, console=console)
    _print_result(result, as_json)


@cli.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1, required=True)
@click.option("--device", default="auto", help="auto, cpu, cuda, cuda:N or mps.", show_default=True)
@click.option("--model", default="", help="Names a foreign factory again, which is then run.")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for masks.  [RUN/predictions]")
@click.option("--overlay", is_flag=True, help="Also lay masks over their pictures.")
@_json_option
def predict(
    run: Path,
    images: tuple[str, ...],
    device: str,
    model: str,
    out: Path | None,
    overlay: bool,
    as_json: bool,
) -> None:
    """Answer for IMAGES, files or folders of them, and for every sample of .npz and .npy files.

    Where each pixel is answered for, masks are written as PNGs of class numbers.
    """
    from neocog.verbs.predict import lines
    from neocog.verbs.predict import predict as answer

    entries = answer(run, images, device=device, model=model, out=out, overlay=overlay)
    if as_json:
        _print_json(entries)
    else:
        for line in lines(entries):
            click.echo(line)
    if any("error" in entry for entry in entries):
        sys.exit(1)


@cli.command()
@click.argument("what", metavar="MODEL|RUN")
@click.option(
    "--input", "sample", help="CxHxW, CxL or CxDxHxW of a sample.  [as published, or the run's]"
)
@click.option("--batch", type=click.IntRange(min=1), help="Samples a step.  [32, or the run's]")
@click.option("--layer", default="", help="Write out the arithmetic of this layer.")
@click.option("--measure", is_flag=True, help="Time every distinct operation of the network.")
@click.option("--no-time", is_flag=True, help="Leave times out: nothing is measured.")
@click.option(
    "--outputs",
    type=click.IntRange(min=1),
    help="Width of the last layer.  [1000; 10 for small pictures; 21 for masks]",
)
@click.option("--device", help="auto, cpu, cuda, cuda:N or mps.  [auto]")
@click.option("--precision", help="fp32, bf16 or fp16.  [fp32, or the run's]")
@click.option("--svg", type=click.Path(path_type=Path), help="Draw the network into this SVG file.")
@click.option(
    "--effective",
    type=click.Path(path_type=Path),
    help="Draw how much each pixel counts for --layer, or the last map, into this .svg or .png.",
)
@click.option("--model", default="", help="Names a run's foreign factory again, which is then run.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="optim.name=sgd, model_args.…"
)
@_json_option
def plan(
    what: str,
    sample: str | None,
    batch: int | None,
    layer: str,
    measure: bool,
    no_time: bool,
    outputs: int | None,
    svg: Path | None,
    effective: Path | None,
    model: str,
    settings: tuple[str, ...],
    as_json: bool,
    **options: Any,
) -> None:
    """What a network is and will cost: sizes, parameters, work, receptive fields, memory, time.

    MODEL is a name of `neocog models`, package.module:factory or a network in a line; RUN is a
    run's folder, which brings its input, batch and settings. Nothing is trained, and no weight
    takes up memory.
    """
    from neocog.verbs.plan import effective as weigh
    from neocog.verbs.plan import plan as make
    from neocog.verbs.plan import recipe_for, result, size_of, write_figure

    size = size_of(sample) if sample else None
    recipe = recipe_for(what, settings, **options)
    found = make(
        what,
        size,
        batch=batch,
        recipe=recipe,
        outputs=outputs,
        model=model,
        time=not (no_time or layer),
        measure=measure,
    )
    shown = result(found, layer=layer, drawing=svg, what=what)
    if effective is not None:
        figure = weigh(what, size, layer=layer, recipe=recipe, outputs=outputs, model=model)
        write_figure(effective, figure)
    _print_result(shown, as_json)


@cli.group(cls=_Verbs)
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
        _bad_options,
    ):
        command = option(command)
    return _json_option(command)


def _data_recipe(
    source: str,
    val: str,
    test: str,
    settings: tuple[str, ...],
    max_bad: float | None,
    strict: bool | None,
) -> Any:
    from neocog.config import Recipe
    from neocog.settings import apply_settings, from_dict

    values: dict[str, Any] = {"source": source, "val": share(val), "test": test}
    told = {"max_bad": max_bad, "strict": strict}
    values |= {name: value for name, value in told.items() if value is not None}
    return from_dict(Recipe, apply_settings({"data": values}, settings)).data


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
@_bad_options
@_json_option
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
    _print_result(result, as_json)


@data.command(name="pack")
@_data_options
def data_pack(
    source: str,
    val: str,
    test: str,
    seed: int,
    settings: tuple[str, ...],
    max_bad: float | None,
    strict: bool | None,
    as_json: bool,
) -> None:
    """Decode SOURCE once into the cache."""
    from neocog.verbs.console import Console
    from neocog.verbs.data import pack

    recipe = _data_recipe(source, val, test, settings, max_bad, strict)
    with Console() as console:
        result = pack(recipe, seed=seed, console=console)
    _print_result(result, as_json)


@data.command(name="show")
@_data_options
def data_show(
    source: str,
    val: str,
    test: str,
    seed: int,
    settings: tuple[str, ...],
    max_bad: float | None,
    strict: bool | None,
    as_json: bool,
) -> None:
    """Parts, classes and sizes of SOURCE."""
    from neocog.verbs.console import Console
    from neocog.verbs.data import show

    recipe = _data_recipe(source, val, test, settings, max_bad, strict)
    with Console() as console:
        result = show(recipe, seed=seed, console=console)
    _print_result(result, as_json)


@cli.command()
@click.argument("pattern", default="")
@_json_option
def models(pattern: str, as_json: bool) -> None:
    """List the networks whose name or summary has PATTERN in it, and their arguments.

    `neocog models line` lists the words of a network in a line.
    """
    from neocog.verbs.models import LINE, listing, table, word_table, words

    entries = words() if pattern == LINE else listing(pattern)
    if not entries:
        raise ConfigError(f"no network matches {pattern!r}", "neocog models lists them all")
    if as_json:
        _print_json(entries)
    else:
        shown = word_table(entries) if pattern == LINE else table(entries)
        click.echo("\n".join(shown))


@cli.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--pickle", is_flag=True, help="Also take the tensors out of a .pt or .pth file.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the tensors to this .safetensors file."
)
@_json_option
def weights(file: Path, pickle: bool, out: Path | None, as_json: bool) -> None:
    """List the tensors in FILE, safetensors or a .pt of PyTorch, and convert it.

    A .pt or .pth file is a program that may do anything: it is opened only with --pickle, and then
    for its tensors only, in a process of its own that may not use the network.
    """
    from neocog.verbs.weights import weights as look

    _print_result(look(file, pickle=pickle, out=out), as_json)


@cli.command(name="filter")
@click.argument("image", type=click.Path(path_type=Path))
@click.option(
    "--kernel",
    "names",
    multiple=True,
    metavar="NAME|MATRIX",
    help='sharpen, sobel-top, …, or numbers: "0 -1 0; -1 5 -1; 0 -1 0". May be given often.',
)
@click.option(
    "--pad",
    type=click.Choice(["zeros", "reflect", "replicate", "circular", "valid"]),
    default="zeros",
    help="What is assumed around the picture; valid: nothing.",
    show_default=True,
)
@click.option("--stride", type=click.IntRange(min=1), default=1, help="Pixels a step.  [1]")
@click.option("--grey", is_flag=True, help="Turn the picture grey first.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="A .png or .svg file.  [IMAGE-filtered.png here]"
)
@_json_option
def filter_(
    image: Path, names: tuple[str, ...], out: Path | None, as_json: bool, **options: Any
) -> None:
    """Draw IMAGE beside what convolution kernels make of it.

    Kernels have names (mean, gaussian, sharpen, outline, sobel-right, shift-up, edge-vertical, …)
    or are matrices of one's own, up to 31×31; fractions such as 1/9 are numbers, too.
    """
    from neocog.verbs.filter import filter_image

    _print_result(filter_image(image, names, out=out, **options), as_json)


def main() -> None:
    """Run the command line; the only place that catches `NeocogError`."""
    wait_patiently()
    try:
        cli.main(standalone_mode=False, prog_name="neocog")
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        if "--json" in sys.argv:
            _print_json({"error": error.format_message(), "hint": ""})
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except (click.Abort, KeyboardInterrupt) as stop:
        # A signal that was heeded has a code of its own; the message says which one it was.
        cause = stop.__cause__ if isinstance(stop, click.Abort) else stop
        text = f"stopped by {cause}" if cause and cause.args else "stopped"
        if "--json" in sys.argv:
            _print_json({"error": text, "hint": ""})
        click.echo(text, err=True)
        sys.exit(getattr(cause, "code", 130))
    except NeocogError as error:
        if "--json" in sys.argv:
            _print_json({"error": error.message, "hint": error.hint})
        click.echo(f"neocog: {error.message}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
