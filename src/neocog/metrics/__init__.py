"""Scores that carry their uncertainty. Floor 1; imports floor 0, NumPy and torch.

Additive statistics first, pure functions after: a `…Statistics` object counts the valid rows of
one batch after another, in any division into batches and in any order. `values()` and `scores()`
are pure functions of what was counted: the same metrics, quickly and plain, or with intervals, for
which the samples are drawn again a thousand times. Sample weights steer training; here every valid
row counts once.

- `intervals`: Wilson, the normal interval of a mean, resampling.
- `rows`: from tensors on any device to checked rows on the host.
- `classification`, `multilabel`, `regression`, `segmentation`: one kind of target each.
- `boundary`: outlines of two label maps, matched.
- `temperature`: what makes confidences honest, fitted and cross-fitted.
- `paired`: two networks on the same samples, two recipes over seeds; `student` is its t.
- `properties`: accuracy by what pictures look like.
"""

from __future__ import annotations

from typing import Literal

from neocog.errors import ConfigError
from neocog.metrics.classification import ClassificationStatistics
from neocog.metrics.intervals import wilson
from neocog.metrics.multilabel import MultilabelStatistics
from neocog.metrics.regression import RegressionStatistics
from neocog.metrics.rows import refuse_nonfinite
from neocog.metrics.segmentation import SegmentationStatistics

__all__ = [
    "ClassificationStatistics",
    "MultilabelStatistics",
    "RegressionStatistics",
    "SegmentationStatistics",
    "direction",
    "refuse_nonfinite",
    "wilson",
]

_SMALL = {"loss", "error", "errors", "mae", "mse", "rmse", "ece", "hamming", "seconds"}
_LARGE = {
    "accuracy",
    "top5",
    "precision",
    "recall",
    "f1",
    "r2",
    "auc",
    "iou",
    "jaccard",
    "dice",
    "boundary",
}


def direction(name: str) -> Literal["min", "max"]:
    """`"min"` or `"max"`: which way a metric of this name improves.

    The name is read word by word, so that `val_loss` and `macro_f1` need no entry of their own. A
    word for what should be small decides: `top5_error` is an error. What follows a colon is a
    column, whose name decides nothing.

    Raises:
        ConfigError: no word of the name is known; guessing could keep the worst weights.

    >>> direction("val_loss"), direction("val_macro_f1"), direction("val_r2:seconds")
    ('min', 'max', 'max')
    """
    words = set(name.partition(":")[0].lower().split("_"))
    if words & _SMALL:
        return "min"
    if words & _LARGE:
        return "max"
    raise ConfigError(
        f"cannot tell whether {name!r} is better small or large",
        "say it: mode = 'min' or mode = 'max'",
    )
