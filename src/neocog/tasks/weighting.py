"""Class weights from how often the classes occur in masks. Floor 2, room tasks.

Imports floor 0 and NumPy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from neocog.errors import ConfigError, near

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Weighting = Literal["balanced", "inverse_frequency", "median_frequency"]

__all__ = ["class_weights"]

_WORDS = ("balanced", "inverse_frequency", "median_frequency")


def class_weights(counts: NDArray[Any], how: Weighting) -> list[float]:
    """A weight for each class, larger for the rare; 1 for a class without pixels.

    - `balanced`, `inverse_frequency`: n / (K · n_c), with n labelled pixels, n_c those of class c
      and K classes that occur: a pixel weighs 1 on average.
    - `median_frequency`: median(f) / f_c, where f_c is n_c over all labelled pixels of those
      pictures that show c, and the median is over the classes that occur (Eigen and Fergus 2015,
      arXiv 1411.4734; Badrinarayanan et al. 2015, arXiv 1511.00561).

    Args:
        counts: labelled pixels of each class in each picture, N×K.
        how: one of the words above.

    Raises:
        ConfigError: another word.

    >>> counts = np.array([[30, 10, 0], [60, 0, 0]])
    >>> [round(one, 4) for one in class_weights(counts, "inverse_frequency")]  # 100 / (2 · n_c)
    [0.5556, 5.0, 1.0]
    >>> # f is 90/100 and 10/40, with a median of 0.575.
    >>> [round(one, 4) for one in class_weights(counts, "median_frequency")]
    [0.6389, 2.3, 1.0]
    """
    if how not in _WORDS:
        raise ConfigError(f"there are no class weights {how!r}", near(how, _WORDS))
    pixels = np.asarray(counts, np.float64)
    of_class = pixels.sum(axis=0)
    occurs = of_class > 0
    weights = np.ones(len(of_class))
    if occurs.any():
        if how == "median_frequency":
            shown_in = ((pixels > 0) * pixels.sum(axis=1, keepdims=True)).sum(axis=0)
            frequency = of_class[occurs] / shown_in[occurs]
            weights[occurs] = np.median(frequency) / frequency
        else:
            weights[occurs] = of_class.sum() / (occurs.sum() * of_class[occurs])
    found: list[float] = weights.tolist()
    return found
