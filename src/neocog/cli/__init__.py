"""The command line: argv ↔ recipe. Floor 6; verbs are imported when they are used.

Every verb takes `--json`: one JSON value on standard output, everything else on standard error.
Exit codes: 0 done, 1 failed, 2 used wrongly.
"""

from __future__ import annotations

import sys

import click

from neocog import __version__
from neocog.cli.datasets import data
from neocog.cli.group import Verbs, print_json
from neocog.cli.looking import compare, explain, filter_, models, plan, weights
from neocog.cli.shipping import export, serve
from neocog.cli.training import evaluate, predict, resume, train
from neocog.errors import ConfigError, NeocogError
from neocog.waiting import wait_patiently

__all__ = ["cli", "main"]


@click.group(
    cls=Verbs, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(__version__, prog_name="neocog")
def cli() -> None:
    """A workbench for convolutional networks: design, train, understand, ship.

    Start with:  neocog train digits
    """


_TRAINING = (train, resume, evaluate, predict)
_LOOKING = (plan, explain, compare, models, weights, filter_)
_SHIPPING = (export, serve)
for _verb in (*_TRAINING, data, *_LOOKING, *_SHIPPING):
    cli.add_command(_verb)


def main() -> None:
    """Run the command line; the only place that catches `NeocogError`."""
    if sys.argv[1:2] not in (["train"], ["resume"]):  # which look for themselves how to wait
        wait_patiently()
    try:
        cli.main(standalone_mode=False, prog_name="neocog")
    except click.exceptions.Exit as stop:
        sys.exit(stop.exit_code)
    except click.ClickException as error:
        if "--json" in sys.argv:
            print_json({"error": error.format_message(), "hint": ""})
        error.show()
        sys.exit(2 if isinstance(error, click.UsageError) else 1)
    except (click.Abort, KeyboardInterrupt) as stop:
        # A signal that was heeded has a code of its own; the message says which one it was.
        cause = stop.__cause__ if isinstance(stop, click.Abort) else stop
        text = f"stopped by {cause}" if cause and cause.args else "stopped"
        if "--json" in sys.argv:
            print_json({"error": text, "hint": ""})
        click.echo(text, err=True)
        sys.exit(getattr(cause, "code", 130))
    except NeocogError as error:
        if "--json" in sys.argv:
            print_json({"error": error.message, "hint": error.hint})
        click.echo(f"neocog: {error.message}", err=True)
        if error.hint:
            click.echo(f"  hint: {error.hint}", err=True)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
