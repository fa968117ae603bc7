"""What an exported file says of itself. Floor 3, room runtime.

Imports described, tasks, weights and floor 0. The text stands in the file's metadata, by the name
`neocog`; it comes from strangers, as the file does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from neocog import tasks
from neocog.described import Described
from neocog.errors import RunError
from neocog.text import printable
from neocog.weights import parse_json

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["ANSWERS", "NAME", "PRECISIONS", "SAMPLES", "Label", "ports"]

NAME = "neocog"
"""Of the text in the metadata."""
SAMPLES = ("images", "samples")
"""What the input of an exported file may be called."""
ANSWERS = ("probabilities", "numbers")
"""The same of the output that is an engine's answer; files for masks have another beside it."""
PRECISIONS = ("fp32", "fp16", "int8")
"""What a file may be computed in, the most exact first."""
_DTYPES = ("uint8", "int16", "float32")
_REMEDY = "export it again with neocog export"


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """The text, read."""

    described: Described
    """What goes in and comes out."""
    origin: str
    """`Bundle.digest` of the bundle that it was made of."""
    precision: str
    """One of `PRECISIONS`."""

    @staticmethod
    def of(text: str | None, where: str) -> Label:
        """From the JSON text in the metadata.

        Args:
            text: None where there is none.
            where: the file's name, for errors.

        Raises:
            RunError: it is missing, no JSON, has other fields than it must have, or describes what
                cannot be.
        """
        if text is None:
            raise RunError(
                f"{where}: expected a file that neocog exported, found none of its metadata",
                "without it nobody knows what goes in and what comes out: export the run that it "
                "came from with neocog export",
            )
        try:
            values = parse_json(text.encode())
            if not isinstance(values, dict):
                raise ValueError("expected an object")
            origin, precision = values.get("digest"), values.get("precision")
            if not isinstance(origin, str):
                raise ValueError("expected digest as a text")
            if precision not in PRECISIONS:
                raise ValueError(f"expected precision of {', '.join(PRECISIONS)}")
            described = Described.of(values.get("described"), file="its metadata", thing=where)
            tasks.check(described.task, described.classes)
        except ValueError as error:  # a ConfigError is one
            why = printable(str(error))[:200]
            raise RunError(f"{where}: its metadata is damaged: {why}", _REMEDY) from error
        return Label(described=described, origin=origin, precision=precision)


def ports(
    inputs: Mapping[str, str], outputs: Sequence[str], where: str
) -> tuple[str, str, tuple[str, ...]]:
    """What is given, and what is asked for.

    Args:
        inputs: names of the model's inputs → NumPy names of their types.
        outputs: names of its outputs.
        where: the file's name, for errors.

    Returns:
        Name of the input, name of the output, and the types that samples may have.

    Raises:
        RunError: the model has others.
    """
    wanted = [name for name in outputs if name in ANSWERS]
    given = [(name, dtype) for name, dtype in inputs.items() if name in SAMPLES]
    if len(inputs) == len(given) == len(wanted) == 1 and given[0][1] in _DTYPES:
        return given[0][0], wanted[0], (given[0][1],)
    found = [", ".join(f"{name} {dtype}" for name, dtype in inputs.items()), ", ".join(outputs)]
    raise RunError(
        f"{where}: expected one input of {', '.join(SAMPLES)} and one output of "
        f"{', '.join(ANSWERS)}, found {' and '.join(printable(one)[:200] for one in found)}",
        _REMEDY,
    )
