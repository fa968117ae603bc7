"""What a trained model says of itself, beside its weights. Floor 1; imports floor 0.

A bundle writes it as `bundle.json`, an exported file carries it in its metadata. It comes from
strangers: every field and its type is checked before any of it is used.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neocog.errors import RunError
from neocog.geometry import LAYOUTS
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["FORMAT", "REMEDY", "Described"]

FORMAT = 5
"""Raised when a bundle of this version could not be read by the one before."""
_ADDED: dict[int, dict[str, dict[str, Any]]] = {
    5: {"input": {"contiguous": False}},
    4: {},  # a classification may have a temperature
    3: {"input": {"whole": False}},
    2: {},
}
"""Format → section → fields that came with it, and what they were before."""
MOST_SIDE = 65_535
"""Pixels of an input's side; more than any image format in use."""
MOST_LENGTH = 2**24
"""Values of an input that is a signal: six minutes at 44,100 a second."""
REMEDY = "restore it from a copy; a bundle is never loaded in part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Described:
    """All of a trained model but its weights."""

    model: ModelSpec
    """How to build the network."""
    input: InputSpec
    """Size, channels and normalisation of its input, and the views that are averaged."""
    task: TaskSpec
    """What its outputs mean."""
    classes: tuple[str, ...]
    """Class, label or column names, in the order of the outputs."""
    manifest: Manifest
    """What decided the run that made it."""

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            "format": FORMAT,
            **{
                name: list(value) if name == "classes" else dataclasses.asdict(value)
                for name, value in fields.items()
            },
        }

    def meaning(self) -> dict[str, Any]:
        """As JSON has it, without what decides no answer: the same from whichever version wrote
        it."""
        found = self.plain()
        del found["manifest"], found["format"]
        for section, fields in _ADDED[5].items():
            for name, before in fields.items():
                if found[section][name] == before:
                    del found[section][name]
        return found

    @staticmethod
    def of(values: Any, *, file: Path | str, thing: Path | str) -> Described:
        """What was written as JSON, by this version or an older one.

        Args:
            values: parsed.
            file: where they stand, for messages.
            thing: what they describe, for messages.

        Raises:
            RunError: of another format, or with fields that are unknown or missing.
            ValueError: a field of another type, naming it.
        """
        expected = {"format", "classes", *_SECTIONS}
        if not isinstance(values, dict) or set(values) != expected:
            found = set(values) if isinstance(values, dict) else {"no object"}
            raise RunError(f"{file} has the wrong fields: {_difference(found, expected)}", REMEDY)
        written = values["format"]
        if type(written) is not int or written not in _ADDED:
            raise RunError(
                f"{thing} is a bundle of format {written!r:.80}, expected {FORMAT}",
                "use the neocog version that wrote it",
            )
        _fill_in(values, written)
        parts = {name: _section(name, values[name]) for name in _SECTIONS}
        if not _is_texts(values["classes"]):
            raise ValueError(f"classes: expected texts, found {values['classes']!r:.80}")
        return Described(classes=tuple(values["classes"]), **parts)


def _fill_in(description: dict[str, Any], written: int) -> None:
    """Give what an older format says the fields that came later, in place."""
    for newer in (one for one in _ADDED if one > written):
        for section, fields in _ADDED[newer].items():
            if isinstance(description[section], dict):
                description[section] = {**fields, **description[section]}


def _is_bool(value: Any) -> bool:
    return isinstance(value, bool)


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict)


def _is_texts(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _is_texts_by_name(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(one, str) for one in value.values())


def _is_number(value: Any) -> bool:
    return type(value) is int


def _is_count(value: Any) -> bool:
    return type(value) is int and 1 <= value <= MOST_SIDE


def _is_size(value: Any) -> bool:
    if not isinstance(value, list) or len(value) not in LAYOUTS:
        return False
    most = MOST_LENGTH if len(value) == 1 else MOST_SIDE
    return all(type(one) is int and 1 <= one <= most for one in value)


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(one) in (int, float) and abs(one) < 1e300 for one in value
    )


def _is_positive_numbers(value: Any) -> bool:
    return _is_numbers(value) and all(one > 0 for one in value)


_OBJECT, _TEXT = ("an object", _is_object), ("text", _is_text)
_SECTIONS: dict[str, tuple[Any, dict[str, tuple[str, Callable[[Any], bool]]]]] = {
    "model": (ModelSpec, {"name": _TEXT, "args": _OBJECT}),
    "input": (
        InputSpec,
        {
            "channels": (f"1 to {MOST_SIDE}", _is_count),
            "size": (f"a length, height and width, or three sides of 1 to {MOST_SIDE}", _is_size),
            "mean": ("numbers", _is_numbers),
            "std": ("numbers above 0", _is_positive_numbers),
            "views": _TEXT,
            "whole": ("true or false", _is_bool),
            "contiguous": ("true or false", _is_bool),
        },
    ),
    "task": (TaskSpec, {"name": _TEXT, "args": _OBJECT}),
    "manifest": (
        Manifest,
        {
            "config": _OBJECT,
            "seed": ("a whole number", _is_number),
            "versions": ("texts by name", _is_texts_by_name),
            "argv": ("texts", _is_texts),
            "device": _OBJECT,
            "data": _OBJECT,
        },
    ),
}
"""Record → field → what it takes, in words and as a test of its JSON form."""


def _section(name: str, values: Any) -> Any:
    """One record from its JSON form; tuples come back as tuples.

    Raises:
        ValueError: naming the field, what was expected and what was found.
    """
    kind, fields = _SECTIONS[name]
    if not isinstance(values, dict):
        raise ValueError(f"{name}: expected an object, found {values!r:.80}")
    if set(values) != set(fields):
        raise ValueError(
            f"{kind.__name__} needs exactly {', '.join(sorted(fields))}: "
            f"{_difference(set(values), set(fields))}"
        )
    for field, (words, fits) in fields.items():
        if not fits(values[field]):
            raise ValueError(f"{name}.{field}: expected {words}, found {values[field]!r:.80}")
    if name == "input" and not values["channels"] == len(values["mean"]) == len(values["std"]):
        raise ValueError(f"input: expected a mean and a std for each of {values['channels']}")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return kind(**plain)


def _difference(found: set[str], expected: set[str]) -> str:
    """What is there but unknown, and what is missing."""
    unknown = [f"{printable(name)[:80]} is unknown" for name in sorted(found - expected)]
    missing = [f"{name} is missing" for name in sorted(expected - found)]
    return ", ".join([*unknown, *missing])
