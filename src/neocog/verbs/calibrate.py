"""Fit the temperature of a classifier to the validation part and put it into the bundle.

Floor 5, room verbs.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import torch

from neocog.metrics import temperature
from neocog.tasks.classify import with_temperature

if TYPE_CHECKING:
    from neocog.bundle import Bundle
    from neocog.engine.kept import Kept
    from neocog.metrics.temperature import Temperature

__all__ = ["calibrated", "told"]


def calibrated(bundle: Bundle, kept: Kept) -> tuple[Bundle, Temperature | None]:
    """The bundle with the temperature that a part wants, and what that is worth.

    Answers and losses stay as they are: only how sure an answer is changes. A temperature that the
    bundle had goes.

    Args:
        bundle: a trained network.
        kept: what it gave for the samples of the validation part.

    Returns:
        The bundle as it came and None where there is nothing to fit: another task, no samples, too
        many to be kept, or outputs that are infinite.
    """
    if bundle.task.name != "classify":
        return bundle, None
    outputs = kept.outputs
    if not len(outputs) or not torch.isfinite(outputs).all():
        return bundle, None
    found = temperature.fit(outputs.numpy(), kept.targets.numpy())
    return dataclasses.replace(bundle, task=with_temperature(bundle.task, found.value)), found


def told(found: Temperature) -> str:
    """One sentence about it.

    >>> from neocog.metrics.temperature import Temperature
    >>> ece, nll = (0.061, 0.012), (0.31, 0.27)
    >>> told(Temperature(value=1.37, n=900, nll=nll, ece=ece, calibration={}))
    'temperature: outputs are divided by 1.37 (ECE 6.1 % → 1.2 %, cross-fitted on 900 samples)'
    >>> told(Temperature(value=1.0, n=9, nll=nll, ece=ece, calibration={}, reason="too few"))
    'temperature: 1, since too few'
    """
    if found.value == 1:
        return f"temperature: 1, since {found.reason}"
    before, after = (f"{100 * one:.1f} %" for one in found.ece)
    return (
        f"temperature: outputs are divided by {found.value:.3g} (ECE {before} → {after}, "
        f"cross-fitted on {found.n:,} samples)" + (f"; {found.reason}" if found.reason else "")
    )
