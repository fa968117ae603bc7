"""Settings that tasks with classes share, checked. Floor 2, room tasks; imports floor 0."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from neocog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["checked"]


def checked(
    classes: Sequence[str], label_smoothing: float, class_weights: Sequence[float] | None
) -> list[float] | None:
    """The class weights as numbers; None: all 1.

    Args:
        classes: names in the order of the outputs.
        label_smoothing: ε in [0, 1).
        class_weights: one for each class.

    Raises:
        ConfigError: repeated names or none, ε out of range, or weights that do not fit.
    """
    if not all(isinstance(one, str) for one in classes):
        raise ConfigError(f"expected the names of classes, got {list(classes)!r:.80}")
    if not classes or len(set(classes)) != len(classes):
        raise ConfigError(f"expected classes with different names, got {list(classes)}")
    if not 0 <= label_smoothing < 1:
        raise ConfigError(f"label smoothing lies in [0, 1), got {label_smoothing}")
    if class_weights is None:
        return None
    weights = [float(one) for one in class_weights]
    if len(weights) != len(classes) or not all(0 <= one < math.inf for one in weights):
        raise ConfigError(f"expected {len(classes)} class weights, none negative, got {weights}")
    return weights
