"""Verbs that look at networks. Room cli; floor 6."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from neocog.cli.group import device_options, json_option, print_json, print_result
from neocog.errors import ConfigError

__all__ = ["compare", "explain", "filter_", "models", "plan", "weights"]


@click.command()
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
@click.option("--page", type=click.Path(path_type=Path), help="Write all of it as a page to show.")
@click.option(
    "--effective",
    type=click.Path(path_type=Path),
    help="Draw how much each pixel counts for --layer, or the last map, into this .svg or .png.",
)
@click.option("--model", default="", help="Names a run's foreign factory again, which is then run.")
@click.option(
    "--set", "settings", multiple=True, metavar="KEY=VALUE", help="optim.name=sgd, model_args.…"
)
@json_option
def plan(
    what: str,
    sample: str | None,
    batch: int | None,
    layer: str,
    measure: bool,
    no_time: bool,
    outputs: int | None,
    svg: Path | None,
    page: Path | None,
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
    shown = result(found, layer=layer, drawing=svg, page=page, what=what)
    if effective is not None:
        figure = weigh(what, size, layer=layer, recipe=recipe, outputs=outputs, model=model)
        write_figure(effective, figure)
    print_result(shown, as_json)


@click.command()
@click.argument("pattern", default="")
@json_option
def models(pattern: str, as_json: bool) -> None:
    """List the networks whose name or summary has PATTERN in it, and their arguments.

    `neocog models line` lists the words of a network in a line.
    """
    from neocog.verbs.models import LINE, listing, table, word_table, words

    entries = words() if pattern == LINE else listing(pattern)
    if not entries:
        raise ConfigError(f"no network matches {pattern!r}", "neocog models lists them all")
    if as_json:
        print_json(entries)
    else:
        shown = word_table(entries) if pattern == LINE else table(entries)
        click.echo("\n".join(shown))


@click.command()
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--pickle", is_flag=True, help="Also take the tensors out of a .pt or .pth file.")
@click.option(
    "--out", type=click.Path(path_type=Path), help="Write the tensors to this .safetensors file."
)
@json_option
def weights(file: Path, pickle: bool, out: Path | None, as_json: bool) -> None:
    """List the tensors in FILE, safetensors or a .pt of PyTorch, and convert it.

    A .pt or .pth file is a program that may do anything: it is opened only with --pickle, and then
    for its tensors only, in a process of its own that may not use the network.
    """
    from neocog.verbs.weights import weights as look

    print_result(look(file, pickle=pickle, out=out), as_json)


@click.command(name="filter")
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
@json_option
def filter_(
    image: Path, names: tuple[str, ...], out: Path | None, as_json: bool, **options: Any
) -> None:
    """Draw IMAGE beside what convolution kernels make of it.

    Kernels have names (mean, gaussian, sharpen, outline, sobel-right, shift-up, edge-vertical, …)
    or are matrices of one's own, up to 31×31; fractions such as 1/9 are numbers, too.
    """
    from neocog.verbs.filter import filter_image

    print_result(filter_image(image, names, out=out, **options), as_json)


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("images", nargs=-1)
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="NAME",
    help="input_gradient, smooth_gradient, integrated_gradients, guided_backprop, grad_cam, "
    "grad_cam_pp, occlusion or all; may be given often.  [four of them]",
)
@click.option("--target", default="", metavar="CLASS", help="What to explain.  [the answer]")
@click.option("--layer", default="", help="Whose map grad_cam weighs.  [the last map]")
@click.option(
    "--mistakes",
    type=click.IntRange(min=0),
    default=0,
    help="Explain so many of the worst held-out mistakes.",
)
@click.option(
    "--trace",
    metavar="LAYER:C,Y,X",
    help="Print the arithmetic of this activation, and the way from it to the pixels.",
)
@click.option(
    "--weight",
    metavar="NAME[K,C,I,J]",
    help="Print the paths from this weight to the loss, and its gradient along them.",
)
@click.option("--minutes", type=float, help="Without IMAGES: what the page may take.  [1]")
@click.option("--out", type=click.Path(path_type=Path), help="Folder for the page.  [RUN]")
@device_options
@json_option
def explain(run: Path, images: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Show why RUN answers IMAGES as it does; without IMAGES, what is inside its network.

    With IMAGES a page is written that has maps of what the answers go by, what must be hidden for
    them to change, and the arithmetic of every activation, to click through. Without, one with the
    kernels, what excites channels, an embedding of the data, how answers bear shifts, noise and the
    like, and the loss around the weights.
    """
    from neocog.verbs.console import Console
    from neocog.verbs.explain import Asked
    from neocog.verbs.explain import explain as show

    with Console() as console:
        result = show(run, images, Asked(**options), console=console)
    _finish(result, as_json)


def _finish(result: Any, as_json: bool) -> None:
    """Print, and fail where a picture could not be read."""
    print_result(result, as_json)
    told = result.json.get("images", ()) if isinstance(result.json, dict) else ()
    if any("error" in entry for entry in told):
        sys.exit(1)


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--on", "source", default="", help="Other data to compare them on.  [their own]")
@click.option(
    "--out", type=click.Path(path_type=Path), help="The page.  [compare.html here]", default=None
)
@device_options
@json_option
def compare(runs: tuple[Path, ...], out: Path | None, as_json: bool, **options: Any) -> None:
    """Say which of two RUNS is better, and whether that is more than chance.

    Both answer for the same samples, which are compared one by one. More than two runs are two
    recipes, each with several seeds.
    """
    from neocog.verbs.compare import compare as weigh
    from neocog.verbs.console import Console

    with Console() as console:
        result = weigh(runs, out=out or Path("compare.html"), console=console, **options)
    print_result(result, as_json)
