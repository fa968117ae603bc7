"""A trained model that describes itself: the only hand-off from training to use.

Floor 3; imports models, tasks, layers and floor 0. A bundle is a folder with `bundle.json` and
`weights.safetensors`. Nothing in it is ever run: a network from outside the catalogue is rebuilt
only when the caller names its factory again.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors

from neocog import tasks
from neocog.errors import ConfigError, RunError
from neocog.files import read_json, write_atomic, write_json
from neocog.layers import Predictor
from neocog.models import catalog
from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from torch import Tensor, nn

__all__ = ["Bundle", "load_weights"]

FORMAT = 2
"""Raised when a bundle of this version could not be read by the one before."""


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
        if name not in catalog.CATALOG and not named:
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
        """The one way to an answer: uint8 B×C×h×w → B×K probabilities or numbers.

        Args:
            model: see `network`.
            device: where it computes.

        Raises:
            ConfigError, RunError: see `network`.
        """
        task = tasks.build(self.task)
        return Predictor(self.network(model), self.input, task.decode).to(device).eval()

    def save(self, folder: Path) -> None:
        """Write `weights.safetensors`, then `bundle.json`; a bundle without the latter is none.

        Raises:
            RunError: the files cannot be written.
        """
        # Copies, because safetensors refuses tensors that share memory (tied weights).
        tensors = {
            name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
            for name, tensor in self.weights.items()
        }
        write_atomic(folder / "weights.safetensors", save_tensors(tensors))
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
        """Read a bundle; nothing is run.

        Raises:
            RunError: missing, damaged, of another format, or with fields that are unknown or
                missing.
        """
        description = read_json(folder / "bundle.json")
        sections: dict[str, Any] = {
            "model": ModelSpec,
            "input": InputSpec,
            "task": TaskSpec,
            "manifest": Manifest,
        }
        expected = {"format", "classes", *sections}
        if not isinstance(description, dict) or set(description) != expected:
            found = set(description) if isinstance(description, dict) else {"no object"}
            raise RunError(
                f"{folder / 'bundle.json'} has the wrong fields: "
                f"{', '.join(sorted(found ^ expected))}"
            )
        if description["format"] != FORMAT:
            raise RunError(
                f"{folder} is a bundle of format {description['format']}, expected {FORMAT}",
                "use the neocog version that wrote it",
            )
        try:
            parts = {name: _section(kind, description[name]) for name, kind in sections.items()}
            weights = load_tensors((folder / "weights.safetensors").read_bytes())
        except (TypeError, ValueError, SafetensorError, OSError) as error:
            raise RunError(f"the bundle {folder} is damaged: {error}") from error
        return Bundle(weights=weights, classes=tuple(description["classes"]), **parts)


def _section(kind: Any, values: Any) -> Any:
    """One record from its JSON form; tuples come back as tuples."""
    names = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(values, dict) or set(values) != names:
        raise ValueError(f"{kind.__name__} needs exactly {', '.join(sorted(names))}")
    plain = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
    return kind(**plain)


def load_weights(network: nn.Module, weights: Mapping[str, Tensor]) -> None:
    """Copy weights into a network whose names, shapes and types must all be the same.

    Raises:
        RunError: names what is missing, unknown, or of another shape or type.
    """
    own = network.state_dict()
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    different = [
        f"{name} is {tuple(weights[name].shape)} {weights[name].dtype}, "
        f"expected {tuple(own[name].shape)} {own[name].dtype}"
        for name in sorted(own.keys() & weights.keys())
        if own[name].shape != weights[name].shape or own[name].dtype != weights[name].dtype
    ]
    problems = [f"missing {name}" for name in missing] + [f"unknown {name}" for name in unknown]
    if problems or different:
        listed = problems + different
        more = f" and {len(listed) - 5} more" if len(listed) > 5 else ""
        raise RunError(
            f"the weights do not fit the network: {'; '.join(listed[:5])}{more}",
            "build the network with the settings that it was trained with",
        )
    network.load_state_dict(dict(weights))
