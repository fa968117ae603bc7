"""Where a training's first weights come from. Floor 5, room verbs."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neocog import weights
from neocog.bundle import Bundle
from neocog.config import TransferRecipe
from neocog.errors import ConfigError
from neocog.models import catalog, transfer
from neocog.models.transfer import Frozen
from neocog.records import InputSpec
from neocog.run import open_run

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from torch import Tensor, nn

    from neocog.config import Recipe
    from neocog.models.transfer import Carried
    from neocog.records import ModelSpec

__all__ = ["DECAY", "Begun", "Origin", "begin", "follow", "origin", "told"]

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

    def summary(self, network: nn.Module, name: str) -> dict[str, Any] | None:
        """For `evaluation.json`; None where all begins anew and learns alike."""
        if self.carried is None and not self.frozen.parameters:
            return None
        one = self.carried
        numbers = {key: value.numel() for key, value in network.named_parameters()}
        return {
            "source": name,
            "fingerprint": one.fingerprint if one else "",
            "carried": list(one.taken) if one else [],
            "adapted": list(one.adapted) if one else [],
            "classes": list(one.classes) if one else [],
            "fresh": dict(one.fresh) if one else {},
            "left": list(one.left) if one else [],
            "frozen_stages": list(self.frozen.stages),
            "frozen": list(self.frozen.parameters),
            "frozen_numbers": sum(numbers[key] for key in self.frozen.parameters),
            "rates": sorted(set(self.rates.values()), reverse=True),
        }


def told(story: Mapping[str, Any] | None) -> list[str]:
    """What a network began with, for people; nothing where all began anew and learnt alike.

    Args:
        story: of `Begun.summary`, also after a way through JSON.
    """
    if story is None:
        return []
    found = []
    if story["source"]:
        count = len(story["carried"]) + len(story["adapted"])
        words = [f"from {story['source']}: {count} tensors carried over"]
        if story["classes"]:
            words.append(f"classes known by name: {_listed(story['classes'], 10)}")
        found += ["; ".join(words), *story["adapted"]]
    by_reason: dict[str, list[str]] = {}
    for tensor, why in story["fresh"].items():
        by_reason.setdefault(why, []).append(tensor)
    if by_reason:
        parts = [f"{_listed(names)} ({why})" for why, names in by_reason.items()]
        found.append(f"fresh: {_listed(parts)}")
    if story["left"]:
        found.append(f"not used: {_listed(story['left'])}")
    if story["rates"]:
        factors = ", ".join(f"{one:g}" for one in story["rates"])
        found.append(f"rates from the last stage on: × {factors}")
    if story["frozen"]:
        stages = ", ".join(story["frozen_stages"]) or "batch norms"
        numbers = f"{story['frozen_numbers']:,} parameters"
        found.append(f"frozen: {stages}: {numbers}{'; what is fresh learns' * bool(by_reason)}")
        if not story["source"]:
            found.append(
                "warning: what is frozen may be as chance drew it: nothing was carried over"
            )
    return found


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
    return Origin(name=source, tensors=network.state_dict(), input=_published(network))


def _published(network: Any) -> InputSpec | None:
    """What timm says that a network was trained on; None where it does not."""
    about = getattr(network, "pretrained_cfg", None) or {}
    try:
        channels, *size = (int(one) for one in about["input_size"])
        mean, std = (tuple(float(one) for one in about[name]) for name in ("mean", "std"))
    except (KeyError, TypeError, ValueError):
        return None
    return InputSpec(channels=channels, size=tuple(size), mean=mean, std=std)


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
        if not catalog.is_own(found.model.name):
            raise ConfigError(
                f"the network of {found.name} is {found.model.name}, which is not one of neocog's "
                "own",
                f"if you trust that code, say so: --model {found.model.name}"
                if catalog.is_foreign(found.model.name)
                else "hand the module over: neocog.fit(module, data, recipe)",
            )
        recipe = dataclasses.replace(recipe, model=found.model.name)
    if found.model and found.model.name == recipe.model:
        args = {**found.model.args, **recipe.model_args}
        recipe = dataclasses.replace(recipe, model_args=args)
    if found.input and recipe.data.size is None and "data.size" not in told:
        data = dataclasses.replace(recipe.data, size=found.input.size)
        recipe = dataclasses.replace(recipe, data=data)
    return recipe


def begin(
    network: nn.Module,
    recipe: TransferRecipe,
    found: Origin | None,
    classes: Sequence[str],
    sample: Sequence[int],
) -> Begun:
    """Lay the carried weights into a network, and freeze what is to stay: never what is fresh
    beside them.

    Args:
        network: fresh; changed in place.
        recipe: how much may change.
        found: the weights; None: its own.
        classes: names of its outputs.
        sample: shape of its input without the batch.

    Raises:
        ConfigError: the weights are of another network, or there are fewer stages than asked for.
    """
    if recipe == TransferRecipe():
        return Begun(carried=None, frozen=Frozen(stages=(), parameters=(), still=()), rates={})
    carried, outputs = None, transfer.output_layers(network, sample)
    if found is not None:
        carried = transfer.carry(
            network,
            found.tensors,
            source=found.name,
            before=found.classes,
            after=classes,
            outputs=outputs,
        )
        network.load_state_dict(dict(carried.tensors))
    frozen = transfer.freeze(
        network,
        recipe.freeze,
        norms=recipe.norms,
        outputs=outputs,
        fresh=carried.fresh if carried else (),
    )
    decay = recipe.decay
    if decay is None:
        decay = DECAY if found is not None else 1.0
    factors = transfer.rates(network, decay, outputs)
    return Begun(carried=carried, frozen=frozen, rates=factors)
