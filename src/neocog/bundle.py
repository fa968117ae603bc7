"""A trained model that describes itself: the only hand-off from training to use.

Floor 3; imports models, tasks, engine, layers, weights and floor 0. A bundle is a folder with
`bundle.json` and `weights.safetensors`. Nothing in it is ever run: a network from outside the
catalogue is rebuilt only when the caller names its factory again. Nothing in it is used before all
of it was checked: the fields and their types, every weight against the network that they describe,
and all weights against the SHA-256 that was written with them.
"""

from __future__ import annotations

import dataclasses
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from neocog import tasks, weights
from neocog.engine import checkpoint
from neocog.errors import ConfigError, NeocogError, RunError
from neocog.files import write_json
from neocog.geometry import LAYOUTS
from neocog.layers import Predictor
from neocog.models import catalog
from neocog.models.empty import without_memory
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from torch import Tensor, nn

__all__ = ["Bundle", "load_weights"]

FORMAT = 4
"""Raised when a bundle of this version could not be read by the one before."""
_ADDED: dict[int, dict[str, dict[str, Any]]] = {
    4: {},  # a classification may have a temperature
    3: {"input": {"whole": False}},
    2: {},
}
"""Format → section → fields that came with it, and what they were before."""
LONGEST = 64 * 2**20
"""Bytes of a `bundle.json`."""
LAYER = 64
"""What a parameter costs to make, in numbers that it holds."""
MOST_SIDE = 65_535
"""Pixels of an input's side; more than any image format in use."""
MOST_LENGTH = 2**24
"""Values of an input that is a signal: six minutes at 44,100 a second."""
_REMEDY = "restore it from a copy; a bundle is never loaded in part"


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """Everything needed to answer: how to build the network, its weights, what goes in and out."""

    model: ModelSpec
    """How to build the network."""
    weights: Mapping[str, Tensor]
    """Its state dict, on the CPU."""
    input: InputSpec
    """Size, channels and normalisation of its input, and the views that are averaged."""
    task: TaskSpec
    """What its outputs mean."""
    classes: tuple[str, ...]
    """Class, label or column names, in the order of the outputs."""
    manifest: Manifest
    """What decided the run that made it."""

    def network(self, model: str | nn.Module = "") -> nn.Module:
        """The network with its weights, in evaluation mode, on the CPU.

        Args:
            model: names the factory again (`package.module:factory`), or is the module itself,
                when the network is not one of the catalogue. The weights are loaded into a module
                that is handed over.

        Raises:
            ConfigError: the network is foreign and was not named, or another was.
            RunError: weights and network do not fit.
        """
        network = self._build(model) if isinstance(model, str) else model
        load_weights(network, self.weights)
        return network.eval()

    def _build(self, named: str) -> nn.Module:
        """The network without its weights."""
        name = self.model.name
        if named and named != name:
            raise ConfigError(f"this bundle holds {name}, not {named}")
        if not catalog.is_own(name) and not named:
            remedy = (
                "hand the module over: neocog.open(run, model=module)"
                if ":" not in name
                else f"if you trust that code, say so: --model {name}"
            )
            raise ConfigError(f"the network {name} is not one of neocog's own", remedy)
        return catalog.build(
            name,
            channels=self.input.channels,
            size=self.input.size,
            outputs=tasks.build(self.task).outputs,
            args=self.model.args,
        )

    def predictor(
        self, *, model: str | nn.Module = "", device: torch.device | str = "cpu"
    ) -> Predictor:
        """The one way to an answer: uint8 B×C×h×w → B×K probabilities or numbers; for signals and
        volumes see `Predictor.outputs`.

        Args:
            model: see `network`.
            device: where it computes.

        Raises:
            ConfigError, RunError: see `network`.
        """
        task, network = tasks.build(self.task), self.network(model)
        if torch.device(device).type == "cpu" and len(self.input.size) == 2:
            # In fp32 on a processor 1.1 (resnet18) to 1.6 (speednet) times as fast.
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        return Predictor(network, self.input, task.decode).to(device).eval()

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors`, then `bundle.json`; a bundle without the latter is none.

        Raises:
            RunError: the files cannot be written.
        """
        checkpoint.save_weights(folder / "weights.safetensors", self.weights)
        self.describe(folder)

    def describe(self, folder: Path) -> None:
        """Write `bundle.json` alone, beside weights that are there and are these.

        Raises:
            RunError: the file cannot be written.
        """
        description = {
            "format": FORMAT,
            **{
                field.name: (
                    list(self.classes)
                    if field.name == "classes"
                    else dataclasses.asdict(getattr(self, field.name))
                )
                for field in dataclasses.fields(self)
                if field.name != "weights"
            },
        }
        write_json(folder / "bundle.json", description)

    @staticmethod
    def load(folder: Path) -> Bundle:
        """Read a bundle and check all of it; nothing is run.

        A foreign network is not there to compare with: its weights are checked in `network`.
        Weights without a SHA-256, as older versions wrote them, are read too.

        Raises:
            RunError: missing, damaged, of another format, with fields that are unknown, missing or
                of another type, or with weights that are not those of the network it describes.
        """
        path = folder / "bundle.json"
        description = _description(path)
        expected = {"format", "classes", *_SECTIONS}
        if not isinstance(description, dict) or set(description) != expected:
            found = set(description) if isinstance(description, dict) else {"no object"}
            raise RunError(f"{path} has the wrong fields: {_difference(found, expected)}", _REMEDY)
        found_format = description["format"]
        if type(found_format) is not int or found_format not in _ADDED:
            raise RunError(
                f"{folder} is a bundle of format {found_format!r:.80}, expected {FORMAT}",
                "use the neocog version that wrote it",
            )
        _fill_in(description, found_format)
        try:
            parts = {name: _section(name, description[name]) for name in _SECTIONS}
            if not _is_texts(description["classes"]):
                raise ValueError(f"classes: expected texts, found {description['classes']!r:.80}")
            bundle = Bundle(
                weights=checkpoint.load_weights(folder / "weights.safetensors"),
                classes=tuple(description["classes"]),
                **parts,
            )
            bundle._check()
        except (NeocogError, ValueError) as error:
            raise RunError(
                f"the bundle {folder} is damaged: {getattr(error, 'message', error)}",
                _REMEDY,
            ) from error
        return bundle

    def _check(self) -> None:
        """The parts belong together.

        Raises:
            NeocogError, ValueError: with what does not fit.
        """
        try:
            task = tasks.build(self.task)
        except (AttributeError, OverflowError, TypeError) as error:
            raise ValueError(f"task {self.task.name}: {error}") from error
        if task.classes != self.classes:
            raise ValueError(
                f"classes: the task has {_names(task.classes)}, the bundle {_names(self.classes)}"
            )
        if catalog.is_own(self.model.name):
            weights.check("the weights", self.weights, self._expected())

    def _expected(self) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
        """Shape and type of every weight of the network, which is built without memory."""
        most = 2 * sum(tensor.numel() + LAYER for tensor in self.weights.values()) + 2**16
        with without_memory(), _AtMost(most):
            try:
                network = self._build("")
            except (OverflowError, RuntimeError, TypeError) as error:
                raise ValueError(f"model {self.model.name}: {error}") from error
        return _shapes(network)


class _AtMost:
    """In this context and thread no module may have more numbers as parameters, taken together.

    A description of a few bytes can ask for a network that takes days to build, even without
    memory; it is known before how many numbers there are to fill it.
    """

    def __init__(self, most: int) -> None:
        self.left = most
        self.thread = threading.get_ident()

    def __enter__(self) -> None:
        self.hook = register_module_parameter_registration_hook(self._count)

    def __exit__(self, *_: object) -> None:
        self.hook.remove()

    def _count(self, module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        if threading.get_ident() != self.thread:
            return
        self.left -= parameter.numel() + LAYER
        if self.left < 0:
            raise ValueError("the network that it describes is larger than its weights")


def _description(path: Path) -> Any:
    """The value in bundle.json.

    Raises:
        RunError: missing, unreadable, too long, or no JSON.
    """
    with weights.open_regular(path) as (file, size):
        if size > LONGEST:
            raise RunError(f"{path} is damaged: expected at most {LONGEST:,} bytes, found {size:,}")
        text = file.read()
    try:
        return weights.parse_json(text)
    except ValueError as error:
        raise RunError(f"{path} is damaged: {error}", "expected JSON") from error


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


def _names(classes: tuple[str, ...]) -> str:
    return printable(", ".join(map(str, classes)))[:200]  # of a task whatever it took


def _shapes(network: nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(one.shape), one.dtype) for name, one in network.state_dict().items()}


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a network whose names, shapes and types must all be the same.

    Raises:
        RunError: names what is missing, unknown, or of another shape or type.
    """
    weights.check("the weights", tensors, _shapes(network))
    network.load_state_dict(dict(tensors))
