"""The Python face's own small functions. Floor 5, beside the verbs."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from neocog import tasks
from neocog.config import DataRecipe, Recipe
from neocog.data import dataset
from neocog.models import catalog
from neocog.settings import from_dict

if TYPE_CHECKING:
    from torch import nn

    from neocog.config import Scalar
    from neocog.data.dataset import Dataset

__all__ = ["build", "load"]


def load(
    source: str | os.PathLike[str],
    *,
    val: float | str | os.PathLike[str] = 0.1,
    test: str | os.PathLike[str] = "",
    dims: int | None = None,
    size: tuple[int, ...] | None = None,
    seed: int = 0,
) -> Dataset:
    """Open a data set: pictures packed once into the cache, targets, classes, splits.

    Args:
        source: folder, archive, IDX, CIFAR, .npz or .csv path, or a name such as `digits`.
        val: validation part, as a share of the training part or as a source of its own.
        test: test part, as a source of its own.
        dims: axes of a sample in an .npz beside its channels: 1 for signals, 2 for pictures, 3 for
            volumes; by default what the file says, else pictures.
        size: height and width of the network's input; by default decided from the pictures.
        seed: decides which samples a share takes.

    Raises:
        ConfigError: an argument of another type, or a share outside [0, 1).
        DataError: with the file, what was expected, what was found and what to do.
    """
    values = {"source": _path(source), "val": _path(val), "test": _path(test)}
    values |= {"dims": dims, "size": size}
    return dataset.load(from_dict(DataRecipe, values, "data"), seed=seed)


def _path(given: Any) -> Any:
    """A path as text; anything else as it is, for the recipe to judge."""
    return os.fspath(given) if isinstance(given, os.PathLike) else given


def build(name: str, data: Dataset, **args: Scalar) -> nn.Module:
    """A fresh network of the catalogue that fits a data set's pictures and targets.

    Args:
        name: a name that `neocog models` lists, `package.module:factory`, or a network in a line.
        data: what `load` returned.
        **args: keyword arguments of the factory, for example `width=32`.

    Raises:
        ConfigError: unknown name or argument, with the near one.
    """
    task = tasks.for_data(data, Recipe())
    return catalog.build(
        name, channels=data.channels, size=data.size, outputs=task.outputs, args=args
    )
