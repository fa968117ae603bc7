"""A trunk of layers one after the other, pooling, and a classifier. Floor 2, room models.

Several families were published in this form, with the trunk called `features`. Here that name
declares the levels of the pyramid, so the two are told apart: a parameter is called `trunk.…` by
`named_parameters`, and `features.…` in state dicts, so that published weights load as they are and
ours are read elsewhere.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from torch import nn

from neocog.rewriting import InOrder

if TYPE_CHECKING:
    from collections.abc import Iterable

    from torch import Tensor

    from neocog.records import FeatureInfo

__all__ = ["TrunkNet", "publish_trunk_as_features", "rename_keys"]


class TrunkNet(InOrder):
    """Trunk → pool → classifier.

    Args:
        trunk: B×C×H×W → B×C'×H'×W'.
        layers: children of the trunk in order, by their names within it. Of those with one stride,
            the last is a level; the last of all ends the trunk.
        classifier: what the pool leaves, flattened where `flat`, → B×outputs.
        flat: whether what the pool leaves is flattened before the classifier.
        pool: what comes between; None: the mean over the picture.
    """

    features: tuple[FeatureInfo, ...]

    def __init__(
        self,
        trunk: nn.Sequential,
        layers: Iterable[FeatureInfo],
        classifier: nn.Module,
        *,
        flat: bool = True,
        pool: nn.Module | None = None,
    ) -> None:
        super().__init__()
        last = {layer.stride: layer for layer in layers}
        self.features = tuple(
            dataclasses.replace(layer, name=f"trunk.{layer.name}") for layer in last.values()
        )
        self.trunk = trunk
        self.avgpool = nn.AdaptiveAvgPool2d(1) if pool is None else pool
        self.flatten = nn.Flatten() if flat else nn.Identity()
        self.classifier = classifier
        publish_trunk_as_features(self)

    def forward_features(self, x: Tensor) -> tuple[Tensor, ...]:
        """B×C×H×W → the levels that `features` declares, finest first."""
        wanted = {level.name for level in self.features}
        levels = []
        for name, layer in self.trunk.named_children():
            x = layer(x)
            if f"trunk.{name}" in wanted:
                levels.append(x)
        return tuple(levels)

    def in_order(self) -> Iterable[nn.Module]:
        """The trunk, the pool, the classifier."""
        return *self.trunk, self.avgpool, self.flatten, self.classifier


def publish_trunk_as_features(module: nn.Module) -> None:
    """In state dicts, the submodule `trunk` goes by the name `features`, out and in.

    Args:
        module: whose state dicts change; whoever builds it owns it.
    """
    # Functions of the module, not closures: networks can be pickled.
    module.register_state_dict_post_hook(_trunk_to_features)  # type: ignore[no-untyped-call]
    module.register_load_state_dict_pre_hook(_features_to_trunk)  # type: ignore[no-untyped-call]


def _trunk_to_features(
    _module: nn.Module, state: dict[str, Any], prefix: str, _metadata: object
) -> None:
    rename_keys(state, f"{prefix}trunk.", f"{prefix}features.")


def _features_to_trunk(
    _module: nn.Module, state: dict[str, Any], prefix: str, *_rest: object
) -> None:
    rename_keys(state, f"{prefix}features.", f"{prefix}trunk.")


def rename_keys(state: dict[str, Any], old: str, new: str) -> None:
    """In place, `old…` becomes `new…`; the order stays."""
    items = [
        (new + key.removeprefix(old) if key.startswith(old) else key, value)
        for key, value in state.items()
    ]
    state.clear()
    state.update(items)
