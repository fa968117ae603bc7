"""Verbs that hand a network over. Room cli; floor 6."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from neocog.cli.group import device_options, json_option, print_result

__all__ = ["export", "serve"]


@click.command()
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--to",
    type=click.Choice(["onnx", "torch", "openvino", "triton"]),
    default="onnx",
    help="The file's form; triton: a model repository.",
    show_default=True,
)
@click.option(
    "--out", type=click.Path(path_type=Path), help="The file, or Triton's repository.  [RUN/export]"
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int8"]),
    default="fp32",
    help="What the network computes in.",
    show_default=True,
)
@click.option(
    "--check", metavar="SOURCE", default="", help="Other data to compare on.  [the run's own]"
)
@click.option(
    "--samples",
    type=click.IntRange(min=1),
    help="Compared on, at most.  [1000; 100 where each pixel is answered for]",
)
@click.option(
    "--max-loss",
    type=click.FloatRange(min=0),
    default=0.01,
    help="How much worse the score of an int8 file may be.",
    show_default=True,
)
@click.option(
    "--name", default="", help="Of the file or model, without its precision.  [the run's]"
)
@click.option("--model", default="", help="Names a foreign factory again, which is then run.")
@json_option
def export(run: Path, as_json: bool, **options: Any) -> None:
    """Write RUN's network as one file that takes raw pictures and answers as RUN does.

    Scaling, normalisation and decoding are inside. The answers for real samples are compared with
    the run's, number by number; a file that differs is not kept. What was found stands beside the
    file, in FILE.json. Nothing but earlier exports is written over.
    """
    from neocog.verbs.console import Console
    from neocog.verbs.export import export as write

    with Console() as console:
        result = write(run, console=console, **options)
    print_result(result, as_json)


@click.command()
@click.argument("models", nargs=-1, required=True, metavar="[NAME=]RUN|FILE...")
@click.option("--port", default=8000, show_default=True, help="0: the system chooses.")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option(
    "--engine",
    default="auto",
    show_default=True,
    help="auto (the fastest here), torch, onnxruntime or openvino.",
)
@device_options
@click.option(
    "--threads",
    type=click.IntRange(min=0),
    default=0,
    help="Of the processor, for each model.  [as many as are fastest]",
)
@click.option(
    "--limit",
    "limits",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any limit: body=20MiB, queue=64, seconds=5.",
)
@click.option(
    "--allow-host",
    multiple=True,
    metavar="NAME",
    help="Another name under which it may be called, as behind a proxy.",
)
@click.option(
    "--drain", default=1.0, show_default=True, help="Seconds from a signal to the end, at least."
)
@click.option("--log", is_flag=True, help="A line for each request.")
@json_option
def serve(models: tuple[str, ...], as_json: bool, **options: Any) -> None:
    """Answer over HTTP with runs, bundles, or files that were exported.

    Clients of the Open Inference Protocol find them below /v2; POST /predict takes a picture, and /
    is a page to try one. At SIGTERM or Ctrl-C what was accepted is finished first.
    """
    from neocog.verbs.serve import Wishes
    from neocog.verbs.serve import serve as run_server

    run_server(Wishes(models=models, **options), as_json=as_json)
