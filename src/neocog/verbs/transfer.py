"""Where a training's first weights come from. Floor 5, room verbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog import weights
from neocog.bundle import Bundle
from neocog.errors import ConfigError
from neocog.models import catalog, transfer
from neocog.run import open_run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor, nn

    from neocog.config import Recipe, TransferRecipe
    from neocog.models.transfer import Carried, Frozen
    from neocog.records import InputSpec, ModelSpec

__all__ = ["DECAY", "Begun", "Origin", "begin", "follow", "origin"]

DECAY = 0.5
"""Factor from the rate of a stage to that of the one before it, where the weights came along."""
_TIMM = "timm:"


@dataclass(frozen=True, slots=True, kw_only=True)
class Origin:
    """Weights and what is known of them."""

    name: str
    """As the user wrote it."""
    tensors: Mapping[str, Tensor]
    """A state dict."""
    classes: tuple[str, ...] = ()
    """Of the rows of the output layer; empty: not known."""
    input: InputSpec | None = None
    """What the network took; None: not known."""
    model: ModelSpec | None = None
    """How it was built; None: not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Begun:
    """What a network begins with."""

    carried: Carried | None
    """From where it came; None: all is fresh."""
    frozen: Frozen
    """What will not change."""
    rates: Mapping[str, float]
    """Factor of each parameter's rate; empty: all learn at the same."""

    def told(self, network: nn.Module, name: str) -> list[str]:
        """For people; nothing where all begins anew and learns."""
        found = []
        if self.carried:
            one = self.carried
            words = [f"from {name}: {len(one.taken) + len(one.adapted)} tensors carried over"]
            if one.classes:
                words.append(f"classes known by name: {_listed(one.classes, 10)}")
            found += ["; ".join(words), *one.adapted]
            if one.fresh:
                by_reason: dict[str, list[str]] = {}
                for tensor, why in one.fresh.items():
                    by_reason.setdefault(why, []).append(tensor)
                parts = [f"{_listed(names)} ({why})" for why, names in by_reason.items()]
                found.append(f"fresh: {_listed(parts)}")
            if one.left:
                found.append(f"not used: {_listed(one.left)}")
        if self.frozen.parameters:
            still = sum(network.get_parameter(one).numel() for one in self.frozen.parameters)
            whole = sum(one.numel() for one in network.parameters())
            found.append(
                f"frozen: {', '.join(self.frozen.stages) or 'batch norms'}: {still:,} of "
                f"{whole:,} parameters"
            )
        return found

    def summary(self, name: str) -> dict[str, Any] | None:
        """For `evaluation.json`; None where all begins anew and learns."""
        if self.carried is None and not self.frozen.parameters:
            return None
        one = self.carried
        return {
            "source": name,
            "carried": list(one.taken) if one else [],
            "adapted": list(one.adapted) if one else [],
            "classes": list(one.classes) if one else [],
            "fresh": dict(one.fresh) if one else {},
            "left": list(one.left) if one else [],
            "frozen_stages": list(self.frozen.stages),
            "frozen": list(self.frozen.parameters),
        }


def _listed(names: Sequence[str], most: int = 3) -> str:
    more = f", and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def origin(source: str) -> Origin | None:
    """The weights that a recipe names; None where it names none. Nothing in them is run.

    Raises:
        RunError: no such run or file, a damaged one, or a run that is not finished.
        ConfigError: timm is not there, or has no such weights.
    """
    if not source:
        return None
    if source.startswith(_TIMM):
        return _timm(source)
    path = Path(source)
    if path.is_dir():
        found = Bundle.load(path) if (path / "bundle.json").is_file() else open_run(path).bundle
        return Origin(
            name=source,
            tensors=found.weights,
            classes=found.classes,
            input=found.input,
            model=found.model,
        )
    return Origin(name=source, tensors=weights.read(path))


def _timm(source: str) -> Origin:
    """Published weights by way of timm, which fetches them."""
    try:
        import timm
    except ImportError as error:
        raise ConfigError(
            f"{source} needs the package timm, which is not here", "pip install neocog[timm]"
        ) from error
    name = source.removeprefix(_TIMM)
    try:
        network = timm.create_model(name, pretrained=True)
    except Exception as error:  # whatever its hub and its registry raise
        raise ConfigError(
            f"timm gives no weights for {name}: {type(error).__name__}: {error}",
            "timm.list_models(pretrained=True) lists the names; offline, save them elsewhere as "
            "safetensors and give the file",
        ) from error
    return Origin(name=source, tensors=network.state_dict())


def follow(recipe: Recipe, found: Origin | None, told: Collection[str]) -> Recipe:
    """The recipe with the network and the input size of where its weights come from, where nobody
    says otherwise.

    Raises:
        ConfigError: it is not known which network the weights are of, or it is a foreign one.
    """
    if found is None:
        return recipe
    if recipe.model == "auto":
        if found.model is None:
            raise ConfigError(
                f"{found.name} does not say which network its weights are of",
                "name it: --model resnet18 (`neocog models` lists them)",
            )
        if found.model.name not in catalog.CATALOG:
            raise ConfigError(
                f"the network of {found.name} is {found.model.name}, which is not one of neocog's "
                "own",
                f"if you trust that code, say so: --model {found.model.name}",
            )
        args = {**found.model.args, **recipe.model_args}
        recipe = dataclasses.replace(recipe, model=found.model.name, model_args=args)
    if found.input and recipe.data.size is None and "data.size" not in told:
        data = dataclasses.replace(recipe.data, size=found.input.size)
        recipe = dataclasses.replace(recipe, data=data)
    return recipe


def begin(
    network: nn.Module, recipe: TransferRecipe, found: Origin | None, classes: Sequence[str]
) -> Begun:
    """Lay the carried weights into a network, and freeze what is to stay.

    Args:
        network: fresh; changed in place.
        recipe: how much may change.
        found: the weights; None: its own.
        classes: names of its outputs.

    Raises:
        ConfigError: the weights are of another network, or there are fewer stages than asked for.
    """
    carried = None
    if found is not None:
        carried = transfer.carry(
            network, found.tensors, source=found.name, before=found.classes, after=classes
        )
        network.load_state_dict(dict(carried.tensors))
    frozen = transfer.freeze(network, recipe.freeze, norms=recipe.norms)
    decay = recipe.decay
    if decay is None:
        decay = DECAY if found is not None else 1.0
    return Begun(carried=carried, frozen=frozen, rates=transfer.rates(network, decay))
