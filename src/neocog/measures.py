"""What metrics are called, and which of them are shares of 1. Floor 0: standard library only.

The console, a run's one line and its report all ask here, so that a metric is never a percentage in
one place and a fraction in another.
"""

from __future__ import annotations

__all__ = ["called", "is_share"]

_CALLED = {
    "accuracy": "accuracy",
    "top5": "top-5 accuracy",
    "balanced_accuracy": "balanced accuracy",
    "macro_f1": "macro F1",
    "micro_f1": "micro F1",
    "mean_average_precision": "mean average precision",
    "subset_accuracy": "all labels right",
    "hamming_loss": "wrong labels (Hamming)",
    "mae": "mean absolute error",
    "rmse": "root mean squared error",
    "r2": "R²",
    "jaccard": "mean Jaccard",
    "boundary_f": "boundary F",
    "loss": "loss",
}
_SHARES = frozenset(
    ("accuracy", "top5", "precision", "recall", "f1", "f", "hamming", "jaccard", "iou", "dice")
)
"""A metric is a share where one of these words is in its name."""


def called(name: str) -> str:
    """A metric's name in words; what follows a colon is a column.

    >>> called("macro_f1"), called("mae:age"), called("a_new_one")
    ('macro F1', 'mean absolute error, age', 'a new one')
    """
    base, _, column = name.partition(":")
    word = _CALLED.get(base, base.replace("_", " "))
    return f"{word}, {column}" if column else word


def is_share(name: str) -> bool:
    """Whether a metric of this name is a share of 1, and is shown in %.

    The name is read word by word, with or without `val_` in front; the name of a column decides
    nothing.

    >>> is_share("val_jaccard"), is_share("macro_f1"), is_share("mae:accuracy"), is_share("loss")
    (True, True, False, False)
    """
    return bool(_SHARES & set(name.partition(":")[0].split("_")))
