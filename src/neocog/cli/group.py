"""What verbs have in common on the command line: groups, options, output. Room cli; floor 6."""

from __future__ import annotations

import json
from typing import Any

import click

from neocog.errors import near

__all__ = ["Verbs", "bad_options", "device_options", "json_option", "print_json", "print_result"]


class Verbs(click.Group):
    """A group that suggests the near verb, and whose errors teach."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Click's own, with a hint."""
        if args and self.get_command(ctx, args[0]) is None and not args[0].startswith("-"):
            hint = near(args[0], self.commands)
            raise click.UsageError(f"no verb {args[0]!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)


def json_option(command: Any) -> Any:
    """Whether the result is for a program."""
    return click.option("--json", "as_json", is_flag=True, help="One JSON value on stdout.")(
        command
    )


def print_json(value: Any) -> None:
    """One JSON value on standard output.

    Raises:
        ValueError: a number that JSON has not.
    """
    click.echo(json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False))


def print_result(result: Any, as_json: bool) -> None:
    """A verb's result on standard output: for programs or for people."""
    if as_json:
        print_json(result.json)
    else:
        click.echo("\n".join(result.lines))


def bad_options(command: Any) -> Any:
    """How much that is wrong with samples a data set may have."""
    for option in (
        click.option(
            "--strict", is_flag=True, default=None, help="Refuse the data at the first bad sample."
        ),
        click.option("--max-bad", type=float, help="Share of the samples that may be bad.  [0.01]"),
    ):
        command = option(command)
    return command


def device_options(command: Any) -> Any:
    """Where a trained network computes, and whether foreign code may be run for it."""
    for option in (
        click.option(
            "--model", default="", help="Names a foreign factory again, which is then run."
        ),
        click.option(
            "--device",
            default="auto",
            help="auto, cpu, cuda, cuda:N or mps.",
            show_default=True,
        ),
    ):
        command = option(command)
    return command
