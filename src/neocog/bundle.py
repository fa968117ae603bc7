"""A trained model that describes itself: the only hand-off from training to use.

Floor 3; imports models, tasks, engine, layers, weights and floor 0. A bundle is a folder with
`bundle.json` and `weights.safetensors`. Nothing in it is ever run: a network from outside the
catalogue is rebuilt only when the caller names its factory again. Nothing in it is used before all
of it was checked: the fields and their types, every weight against the network that they describe,
and all weights against the SHA-256 that was written with them.
"""

from __future__ import annotations

import dataclasses
import json
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.modules.module import register_module_parameter_registration_hook

from neocog import tasks, weights
from neocog.described import REMEDY, Described
from neocog.engine import checkpoint
from neocog.errors import ConfigError, NeocogError, RunError
from neocog.files import write_json
from neocog.layers import Predictor, materialize
from neocog.models import catalog
from neocog.models.empty import without_memory

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

    from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

__all__ = ["Bundle", "load_weights"]

LONGEST = 64 * 2**20
"""Bytes of a `bundle.json`."""
LAYER = 64
"""What a parameter costs to make, in numbers that it holds."""


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

    @property
    def described(self) -> Described:
        """All of it but the weights."""
        fields = dataclasses.fields(Described)
        return Described(**{field.name: getattr(self, field.name) for field in fields})

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of all that decides an answer: weights and what they mean."""
        plain = self.described.meaning()
        return checkpoint.digest_of(json.dumps(plain, sort_keys=True), self.weights)

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
        try:
            with torch.random.fork_rng(devices=[]):
                materialize(network, self.input)
        except (RuntimeError, TypeError, ValueError, LookupError) as error:
            raise RunError(
                f"the network has lazy layers and does not take the run's input: {error}",
                "name the network that was trained",
            ) from error
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
        # In fp32 on a processor up to 1.04 times as fast (resnet18). A network of somebody else may
        # not take it, nor kernels that were handed over so.
        cpu = torch.device(device).type == "cpu"
        last = cpu and len(self.input.size) == 2 and catalog.is_own(self.model.name)
        order = torch.channels_last if last else torch.contiguous_format
        network.to(memory_format=order)  # type: ignore[call-overload]
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
        write_json(folder / "bundle.json", self.described.plain())

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
        try:
            described = Described.of(description, file=path, thing=folder)
        except ValueError as error:
            raise _damaged(folder, str(error)) from error
        try:
            bundle = Bundle(
                weights=checkpoint.load_weights(folder / "weights.safetensors"),
                **{one.name: getattr(described, one.name) for one in dataclasses.fields(described)},
            )
            bundle._check()
        except (NeocogError, ValueError) as error:
            raise _damaged(folder, getattr(error, "message", str(error))) from error
        return bundle

    def _check(self) -> None:
        """The parts belong together.

        Raises:
            NeocogError, ValueError: with what does not fit.
        """
        tasks.check(self.task, self.classes)
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


def _damaged(folder: Path, why: str) -> RunError:
    return RunError(f"the bundle {folder} is damaged: {why}", REMEDY)


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


def _shapes(network: nn.Module) -> dict[str, tuple[tuple[int, ...], torch.dtype]]:
    return {name: (tuple(one.shape), one.dtype) for name, one in network.state_dict().items()}


def load_weights(network: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copy weights into a network whose names, shapes and types must all be the same.

    Raises:
        RunError: names what is missing, unknown, or of another shape or type.
    """
    weights.check("the weights", tensors, _shapes(network))
    network.load_state_dict(dict(tensors))
