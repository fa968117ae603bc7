"""The nouns that rooms hand to each other. Floor 0: standard library only.

Frozen, slotted, keyword-only dataclasses. Tensors appear in annotations only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

__all__ = [
    "FULL_SCALE",
    "VOID",
    "Batch",
    "ClassRow",
    "DataCount",
    "Event",
    "Fault",
    "FeatureInfo",
    "InputSpec",
    "Interval",
    "Manifest",
    "ModelSpec",
    "Scores",
    "TaskSpec",
    "TrainState",
    "Views",
    "scores_from_dict",
    "scores_to_dict",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """What one step sees."""

    images: Tensor
    """B×C×H×W. uint8 as gathered; float32 in the same 0…255 units once augmented. Signals B×C×L and
    volumes B×C×D×H×W have a type of `FULL_SCALE`, and its units."""
    targets: Tensor
    """Class indices (B, int64), mixed or multi-label targets (B×K, float32), numbers (B×K,
    float32), or masks (B×H×W, uint8): the class of each pixel, or `VOID`."""
    weights: Tensor
    """Sample weights, B, float32; 1 where the data has none."""
    valid: Tensor
    """B, bool. False marks padding, which no loss and no score may count."""
    ids: Tensor
    """Sample ids, B, int64: rows of the `Dataset`."""


VOID = 255
"""In a mask: a pixel that has no label, which no loss and no score may count."""
FULL_SCALE = {"uint8": 255.0, "int16": 32768.0, "float32": 1.0}
"""Types that signals and volumes may have, and the number that is 1 to the network: whole numbers
are divided by it, floats are taken as they are. Pictures are uint8, whatever they were."""

Views = Literal["one", "mirror", "shift", "mirror+shift"]
"""What a trained network looks at to answer for one picture; see `InputSpec.views`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class InputSpec:
    """What a network takes: enough to turn any picture, signal or volume into its input."""

    channels: int
    """Of pictures 1 for grey, 3 for RGB."""
    size: tuple[int, ...]
    """Height and width of pictures in pixels; length of signals; depth, height and width of
    volumes."""
    mean: tuple[float, ...]
    """Per channel, over the training part; in units of 0…1 for pictures, of `FULL_SCALE` else."""
    std: tuple[float, ...]
    """Per channel, in the units of the mean, over the training part."""
    views: Views = "one"
    """What is looked at; the network's outputs, before they are decoded, are averaged. `one`: the
    picture. `mirror`: also its left-right mirror image, half each. `shift`: the picture counts 1/2,
    the picture moved by one pixel down and right 1/4, up and left 1/4. `mirror+shift`: `shift` of
    the picture and of its mirror image, half each; six times the work of `one`."""
    whole: bool = False
    """Off: a picture is scaled to cover `size` and cropped to it. On: it is answered for as it is,
    pixel by pixel, and `size` is that of training crops alone."""
    contiguous: bool = False
    """On: the network must be given pictures with the channels first in memory, too, since it views
    what comes out of a convolution as another shape (`x.view(x.shape[0], -1)`). Off: they lie as
    the data set has them, channels last, which is faster."""

    def __post_init__(self) -> None:
        known = get_args(Views)
        if self.views not in known:
            raise ValueError(f"views is one of {', '.join(known)}, got {self.views!r}")


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureInfo:
    """One level of the pyramid that `forward_features` returns."""

    channels: int
    """Channels of this level."""
    stride: int
    """Input pixels per step of this level."""
    name: str
    """Module path of the layer that makes it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened in a run; `events.jsonl` holds one a line, append-only."""

    step: int
    """Optimiser steps done."""
    kind: str
    """`start`, `step`, `epoch`, `rate`, `end`; `resume` in a run with `minutes`."""
    values: Mapping[str, Any]
    """JSON values; metrics are named `loss`, `val_loss`, `val_accuracy`, …"""
    time: float
    """Seconds since the run began, by a monotonic clock."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that is wrong with the data, and what was done about it."""

    path: str
    """Where, relative to the source; unprintable characters escaped."""
    format: str
    """`jpeg`, `png`, `idx`, `csv`, `folder`, …"""
    code: str
    """Short and stable, for programs: `truncated`, `empty-file`, `duplicate`, …"""
    reason: str
    """One sentence for people: expected, found."""
    policy: Literal["skip", "refuse", "accept"]
    """`skip`: this sample was left out; `refuse`: the data set was; `accept`: reported only."""
    offset: int | None = None
    """Byte or line where there is one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DataCount:
    """The count closes: found = used + skipped."""

    found: int
    """Samples that the source lists."""
    used: int
    """Samples that were read."""
    skipped: int
    """Samples that were left out; each has a `Fault`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Interval:
    """A number with its 95 % interval."""

    value: float
    """The estimate."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end of the 95 % interval."""
    n: int
    """Samples behind it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """How one class fares; a value is None where it is undefined (0/0), never 0."""

    name: str
    """The class."""
    precision: Interval | None
    """Of the answers that named it, the share that was right; n counts those answers."""
    recall: Interval | None
    """Of its samples, the share that was found; n counts those samples."""
    f1: Interval | None
    """Harmonic mean of the two; interval by Wilson's for tp / (tp + fp + fn), mapped; n counts
    those samples."""
    n: int
    """Samples of this class; of masks, its labelled pixels."""
    jaccard: Interval | None = None
    """Of masks: the overlap of truth and answer over their union; None where neither names the
    class, and for other targets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scores:
    """What an evaluation found. `metrics` always holds `loss` and the task's own."""

    metrics: Mapping[str, Interval]
    """`accuracy`, `top5`, `loss`, `mae`, `rmse`, `r2`, `mean_average_precision`, `jaccard`, …"""
    classes: tuple[ClassRow, ...] = ()
    """One row per class, in the order of the classes; empty for regression."""
    confusion: tuple[tuple[int, ...], ...] = ()
    """Counts; row: true class, column: answer."""
    calibration: Mapping[str, Any] = field(default_factory=dict)
    """`ece` (expected calibration error, an interval as a dict) and `bins` for the diagram."""
    data: DataCount | None = None
    """How many samples were found, used and skipped."""


_SCORE_PARTS = ("classes", "confusion", "calibration", "data")
"""Keys of the JSON form of `Scores` that are not metrics."""


def scores_to_dict(scores: Scores) -> dict[str, Any]:
    """The JSON form: metrics at the top level, plain numbers where people look for them.

    `classes` rows carry precision, recall and f1 as numbers or null, `calibration` carries `ece` as
    a number; their intervals stand beside them under `intervals` and `ece_interval`.

    >>> half = Interval(value=0.5, low=0.1, high=0.9, n=4)
    >>> scores_to_dict(Scores(metrics={"accuracy": half}))["accuracy"]
    {'value': 0.5, 'low': 0.1, 'high': 0.9, 'n': 4}
    """
    reserved = set(_SCORE_PARTS) & set(scores.metrics)
    if reserved:
        raise ValueError(f"expected metrics of other names, got {sorted(reserved)}")
    plain: dict[str, Any] = {name: asdict(one) for name, one in scores.metrics.items()}
    rows = []
    for row in scores.classes:
        ends = {"precision": row.precision, "recall": row.recall, "f1": row.f1}
        if row.jaccard is not None:
            ends["jaccard"] = row.jaccard
        values = {name: one.value if one else None for name, one in ends.items()}
        intervals = {name: asdict(one) if one else None for name, one in ends.items()}
        rows.append({"name": row.name, **values, "n": row.n, "intervals": intervals})
    calibration = dict(scores.calibration)
    if "ece" in calibration:
        calibration["ece_interval"] = dict(calibration["ece"])
        calibration["ece"] = calibration["ece_interval"]["value"]
    plain["classes"] = rows
    plain["confusion"] = [list(row) for row in scores.confusion]
    plain["calibration"] = calibration
    plain["data"] = asdict(scores.data) if scores.data else None
    return plain


def scores_from_dict(d: Mapping[str, Any]) -> Scores:
    """What `scores_to_dict` wrote, also after a trip through JSON.

    Raises:
        KeyError, TypeError: not the JSON form of scores.
    """

    def interval(values: Mapping[str, Any] | None) -> Interval | None:
        return Interval(**values) if values is not None else None

    calibration = dict(d["calibration"])
    if "ece_interval" in calibration:
        calibration["ece"] = calibration.pop("ece_interval")
    return Scores(
        metrics={name: Interval(**one) for name, one in d.items() if name not in _SCORE_PARTS},
        classes=tuple(
            ClassRow(
                name=row["name"],
                precision=interval(row["intervals"]["precision"]),
                recall=interval(row["intervals"]["recall"]),
                f1=interval(row["intervals"]["f1"]),
                n=row["n"],
                jaccard=interval(row["intervals"].get("jaccard")),
            )
            for row in d["classes"]
        ),
        confusion=tuple(tuple(row) for row in d["confusion"]),
        calibration=calibration,
        data=DataCount(**d["data"]) if d["data"] is not None else None,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSpec:
    """How to build the network again."""

    name: str
    """A name of the catalogue, or `package.module:factory`, or `(unnamed)` for a module object."""
    args: Mapping[str, Any]
    """Keyword arguments of the factory, JSON values only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskSpec:
    """How to build the task again."""

    name: str
    """`classify`, `multilabel`, `regress` or `segment`."""
    args: Mapping[str, Any]
    """Keyword arguments of the factory, JSON values only."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainState:
    """All that a checkpoint holds. Nothing random is in it: chance is a function."""

    step: int
    """Optimiser steps done; epoch and position in the epoch follow from it."""
    model: Mapping[str, Tensor]
    """The network's state dict."""
    optimizer: Mapping[str, Any]
    """The optimiser's state dict."""
    schedule: Mapping[str, Any]
    """What callbacks remember (best value, patience, rate factor), JSON values only."""
    ema: Mapping[str, Tensor]
    """Averaged weights; empty when averaging is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """What decided a run; `manifest.json` of the run folder."""

    config: Mapping[str, Any]
    """The whole resolved recipe: `--config manifest.json` runs it again."""
    seed: int
    """The seed."""
    versions: Mapping[str, str]
    """neocog, python, torch, numpy, pillow."""
    argv: tuple[str, ...]
    """The command line, or the Python call."""
    device: Mapping[str, Any]
    """Kind, name, threads."""
    data: Mapping[str, Any]
    """Source, fingerprint, sizes of the splits, classes, counts, duplicates."""
