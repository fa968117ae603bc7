"""The recipe: all that decides a run. Floor 0: standard library only.

`None` means "decided from the data or the machine", and the resolved recipe in the manifest says
what was decided. How text becomes a recipe is in `settings`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from neocog.errors import ConfigError

__all__ = [
    "AugmentRecipe",
    "CheckpointRecipe",
    "DataRecipe",
    "EngineRecipe",
    "LossRecipe",
    "OptimRecipe",
    "PlateauRecipe",
    "Recipe",
    "Scalar",
    "ScheduleRecipe",
    "StopRecipe",
    "TransferRecipe",
]

MOST_THREADS = 256
"""More would keep any machine busy with switching between them."""

MOST_MINUTES = 100_800
"""Ten weeks."""

Scalar = bool | int | float | str


@dataclass(frozen=True, slots=True, kw_only=True)
class DataRecipe:
    """Where the pictures come from and how they are read."""

    source: str = "digits"
    """Folder, archive, IDX, CIFAR, .npz, .csv or the name of a set."""
    dims: Literal[1, 2, 3] | None = None
    """Axes of a sample in an .npz beside its channels: 1 for signals, 2 for pictures, 3 for
    volumes. None: what its array `dims` says; else 3 for arrays of five axes, 2 for all others."""
    val: float | str = 0.1
    """Validation part: a share of the training part, or a source. A `val` split of the source
    itself goes before a share."""
    seed: int | None = None
    """Decides which samples a share holds back. None: the run's seed."""
    test: str = ""
    """Test part: a source. A `test` split of the source itself needs no mention."""
    size: tuple[int, ...] | None = None
    """Height and width of the network's input; one number stands for both. None: as stored where
    all pictures share one small size, else 128×128. Signals and volumes are as they are stored.
    Masks: of the crops that are trained on, from pictures that keep their size; None: up to 256
    pixels a side."""
    channels: int | None = None
    """None: 1 where all pictures are grey, else 3. Signals and volumes have as many as are stored:
    there it tells which axis they are."""
    ignore: int | None = None
    """Masks: a value that stands for pixels without a label, beside 255."""
    minimum_side: int = 1
    """Pictures with a shorter side are skipped and reported."""
    deep: bool = False
    """Take pictures of 16 bits a channel, of each number its upper 8 bits. Off: they are refused,
    for what is dropped may be what they were taken for."""
    max_bad: float = 0.01
    """Share of bad samples above which the data set is refused."""
    strict: bool = False
    """Refuse the data set at the first bad sample."""

    def __post_init__(self) -> None:
        if isinstance(self.val, int | float) and not 0 <= self.val < 1:
            raise ConfigError(
                f"data.val is a share in [0, 1), got {self.val}", "0.1 holds back a tenth"
            )
        if self.minimum_side < 1:
            raise ConfigError(f"data.minimum_side is at least 1 pixel, got {self.minimum_side}")
        if not 0 <= self.max_bad <= 1:
            raise ConfigError(f"data.max_bad is a share in [0, 1], got {self.max_bad}")
        if self.size is not None and not (1 <= len(self.size) <= 3 and min(self.size) >= 1):
            raise ConfigError(f"data.size is height,width in pixels, got {self.size}")
        if self.ignore is not None and not 0 <= self.ignore <= 255:
            raise ConfigError(f"data.ignore is a value of a mask, 0 to 255, got {self.ignore}")
        if self.channels is not None and self.channels < 1:
            raise ConfigError(f"data.channels is at least 1, got {self.channels}")


@dataclass(frozen=True, slots=True, kw_only=True)
class AugmentRecipe:
    """What a training picture may go through. None: decided from the data; 0 turns it off."""

    flip: float | None = None
    """Probability of mirroring left to right."""
    alternate: bool = False
    """Mirror by turns instead of by chance (arXiv 2404.00498): half of the samples in one epoch,
    the other half in the next, so that two epochs show every picture both ways."""
    flip_vertical: float = 0.0
    """Probability of mirroring top to bottom."""
    shift: float | None = None
    """Largest shift per axis, as a share of the side (0.125: 4 of 32 pixels)."""
    padding: Literal["zero", "reflect", "replicate"] | None = None
    """What a shift, turn or zoom out uncovers."""
    rotate: float | None = None
    """Largest turn in degrees, either way."""
    scale: float | None = None
    """Largest zoom, as a share: 0.2 draws factors from 1/1.2 to 1.2, evenly in the logarithm."""
    color: float = 0.0
    """Largest shift of each of R, G and B by itself, in units of 0…1 (grey pictures: no effect)."""
    contrast: float = 0.0
    """Largest change of contrast about the picture's mean, as a share."""
    brightness: float = 0.0
    """Largest change of brightness, in units of 0…1."""
    blur: float = 0.0
    """Largest standard deviation of a Gaussian blur, in pixels."""
    noise: float = 0.0
    """Largest standard deviation of added Gaussian noise, in units of 0…1."""
    cutout: float = 0.0
    """Side of the square that is blanked with the mean, as a share of the shorter side."""
    mixup: float = 0.0
    """α of the Beta distribution that mixes pairs (arXiv 1710.09412); 0 turns it off."""
    cutmix: float = 0.0
    """α of the Beta distribution of the pasted area (arXiv 1905.04899); 0 turns it off."""

    def __post_init__(self) -> None:
        for name in ("flip", "flip_vertical", "cutout"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise ConfigError(f"augment.{name} lies in [0, 1], got {value}")
        for name in (
            *("shift", "rotate", "scale", "color", "contrast", "brightness", "blur", "noise"),
            *("mixup", "cutmix"),
        ):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"augment.{name} is not negative, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class LossRecipe:
    """What the network is asked to make small."""

    label_smoothing: float = 0.0
    """Share of the target spread evenly over all classes (arXiv 1512.00567)."""
    class_weights: Literal["none", "balanced", "inverse_frequency", "median_frequency"] = "none"
    """`balanced`: each class weighs n / (classes · its count). Masks: `inverse_frequency`: the
    same, of pixels; `median_frequency`: the median of all frequencies over its own, where the
    frequency is that in pictures that show the class (Eigen and Fergus 2015, arXiv 1411.4734)."""
    pixels: Literal["cross_entropy", "dice", "focal", "cross_entropy+dice"] = "cross_entropy"
    """Masks: the loss."""
    focal_gamma: float = 2.0
    """Masks: how fast `focal` forgets pixels that are right already (arXiv 1708.02002)."""
    kind: Literal["squared", "absolute", "huber"] = "squared"
    """Regression: the loss."""
    delta: float = 1.0
    """Regression: where Huber turns from squared to absolute, in standard deviations of the
    target."""

    def __post_init__(self) -> None:
        if not 0 <= self.label_smoothing < 1:
            raise ConfigError(f"loss.label_smoothing lies in [0, 1), got {self.label_smoothing}")
        if self.delta <= 0:
            raise ConfigError(f"loss.delta is positive, got {self.delta}")
        if self.focal_gamma < 0:
            raise ConfigError(f"loss.focal_gamma is 0 or more, got {self.focal_gamma}")


@dataclass(frozen=True, slots=True, kw_only=True)
class OptimRecipe:
    """How weights move."""

    name: Literal["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam", "adamw", "muon"] = (
        "adamw"
    )
    """The rule."""
    lr: float | None = None
    """Peak learning rate. None: the rule's usual one."""
    momentum: float = 0.9
    """momentum, nesterov, muon: decay of the running direction."""
    alpha: float = 0.99
    """rmsprop: decay of the running mean square."""
    betas: tuple[float, float] = (0.9, 0.999)
    """adam, adamw, and the vectors beside muon: decay of both running means."""
    eps: float = 1e-8
    """Keeps divisions finite."""
    weight_decay: float | None = None
    """Decoupled decay of matrices and kernels, never of biases and norms. None: the rule's
    usual one. For rules other than adamw and muon it is the L2 gradient λ·w."""
    centralize: bool = False
    """Subtract from each weight gradient its mean over all axes but the output one
    (arXiv 2004.01461)."""
    l1: float = 0.0
    """Adds l1 · Σ|w| to the loss."""
    l2: float = 0.0
    """Adds l2 · Σw² to the loss."""
    elastic: float = 0.0
    """λ of the elastic net λ(βΣw² + Σ|w|)."""
    elastic_beta: float = 1.0
    """β of the elastic net."""
    normalize: bool = False
    """muon: bring every matrix that it moves to a norm of √rows before each step. Where a norm
    follows the layer, only the direction of its weights counts; `lr` is then the share of the
    weights that one step changes, whatever the layer's shape (0.1 is a good start)."""
    beside: float = 1.0
    """muon: peak rate of what AdamW takes beside it, as a share of `lr`."""
    clip_norm: float = 0.0
    """Largest norm of the whole gradient; 0 turns clipping off."""

    def __post_init__(self) -> None:
        if self.lr is not None and not self.lr > 0:
            raise ConfigError(f"optim.lr is positive, got {self.lr}", "0.001 is a safe start")
        for name in ("l1", "l2", "elastic", "elastic_beta", "clip_norm", "weight_decay", "beside"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"optim.{name} is not negative, got {value}")
        for name in ("momentum", "alpha"):
            if not 0 <= getattr(self, name) < 1:
                raise ConfigError(f"optim.{name} lies in [0, 1), got {getattr(self, name)}")
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ConfigError(f"optim.betas lie in [0, 1), got {self.betas}")
        if not self.eps > 0:
            raise ConfigError(f"optim.eps is positive, got {self.eps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRecipe:
    """How the learning rate moves between the first step and the last."""

    name: Literal["constant", "step", "cosine", "linear", "onecycle"] = "onecycle"
    """The shape."""
    warmup: float = 0.0
    """Share of all steps spent rising linearly from 0, before the shape begins."""
    rise: float = 0.3
    """onecycle: share of the steps before the peak."""
    start: float = 0.04
    """onecycle: first rate, as a share of the peak."""
    end: float = 0.0
    """Last rate, as a share of the peak (cosine, linear, onecycle)."""
    every: int = 10
    """step: epochs between two drops."""
    gamma: float = 0.1
    """step: factor of each drop."""
    grow: float = 1.0
    """Side of the training pictures at the beginning, as a share of the whole, at least 16 pixels
    and what the network takes: steps on pictures of half the side cost a quarter. They grow in
    two steps (progressive resizing, arXiv 2104.00298); 1 shows them whole from the start."""
    grown: float = 0.6
    """Share of the training after which they are whole."""

    def __post_init__(self) -> None:
        if not 0 < self.grow <= 1:
            raise ConfigError(f"schedule.grow lies in (0, 1], got {self.grow}")
        if not 0 <= self.grown < 1:
            raise ConfigError(
                f"schedule.grown lies in [0, 1), got {self.grown}",
                "a network must end on pictures of the size that it will see",
            )
        for name in ("warmup", "rise", "start", "end"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigError(f"schedule.{name} lies in [0, 1], got {getattr(self, name)}")
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"schedule.gamma lies in (0, 1], got {self.gamma}")
        if self.every < 1:
            raise ConfigError(f"schedule.every is at least one epoch, got {self.every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRecipe:
    """How long, how much at once, on what."""

    epochs: int | None = None
    """Passes over the training part. None: 10, and more for small sets, until 1,000 steps are
    done, at most 100; or as many as fit into `minutes`."""
    minutes: float | None = None
    """Length of the whole run, instead of `epochs`: from the start of the program to its end, data,
    evaluation and report included."""
    batch: int | None = None
    """Images a step. None: 128, and fewer for small sets, so that an epoch has some 50 steps, at
    least 16."""
    accumulate: int = 1
    """Batches whose gradients are added up before one optimiser step."""
    ema: float = 0.0
    """Decay of the averaged weights, for example 0.999; 0 turns averaging off. The average is what
    is evaluated and kept."""
    device: str = "auto"
    """auto (cuda, then mps, then cpu), or a torch device."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Arithmetic of the training step; evaluation is always fp32."""
    layout: Literal["auto", "contiguous", "channels_last"] = "auto"
    """Memory order of images and kernels."""
    compile: Literal["auto", "on", "off"] = "auto"
    """torch.compile of the training step."""
    threads: int | None = None
    """Threads of one operation. None: as the machine has cores."""
    save_minutes: float = 5.0
    """Minutes between two checkpoints within an epoch, at most; 0: only at the end of each. A run
    with `minutes` saves every tenth of them, where that is more often."""
    views: Literal["one", "many"] = "one"
    """How often evaluation and prediction look at a picture. `many`: also at its mirror image and
    moved by a pixel, where training flips and shifts, and the outputs are averaged; costs up to six
    times as much. Validation during training looks once."""
    temperature: Literal["fit", "off"] = "fit"
    """Whether the outputs of a classifier are divided by a number, fitted to the validation part
    after training, so that its confidence is earned. No answer changes by it."""

    def __post_init__(self) -> None:
        if self.minutes is not None:
            if self.epochs is not None:
                raise ConfigError(
                    f"engine.epochs={self.epochs} and engine.minutes={self.minutes:g} both say how "
                    "long the run is",
                    "give one of them",
                )
            if not 0 < self.minutes <= MOST_MINUTES:
                raise ConfigError(
                    f"engine.minutes lies above 0 and is at most {MOST_MINUTES:,} (ten weeks), "
                    f"got {self.minutes:g}"
                )
        for name in ("epochs", "batch", "accumulate", "threads"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"engine.{name} is at least 1, got {value}")
        if self.threads is not None and self.threads > MOST_THREADS:
            raise ConfigError(f"engine.threads is at most {MOST_THREADS}, got {self.threads}")
        if not 0 <= self.save_minutes <= MOST_MINUTES:
            raise ConfigError(
                f"engine.save_minutes lies in 0…{MOST_MINUTES:,}, got {self.save_minutes:g}"
            )
        if not 0 <= self.ema < 1:
            raise ConfigError(f"engine.ema lies in [0, 1), got {self.ema}")


@dataclass(frozen=True, slots=True, kw_only=True)
class StopRecipe:
    """Early stopping; off unless `patience` is set."""

    patience: int | None = None
    """Epochs without improvement before the run stops."""
    monitor: str = "val_loss"
    """The metric that is watched."""
    min_delta: float = 0.0
    """Smaller changes are no improvement."""
    mode: Literal["auto", "min", "max"] = "auto"
    """auto: max for accuracies and the like, min for losses and errors."""
    baseline: float | None = None
    """A value that must be beaten before patience starts anew."""
    restore_best: bool = True
    """End with the weights of the best epoch."""

    def __post_init__(self) -> None:
        for name in ("patience", "min_delta"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"stop.{name} is not negative, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlateauRecipe:
    """Lower the rate when progress stalls; off unless `patience` is set."""

    patience: int | None = None
    """Epochs without improvement before the rate is lowered."""
    monitor: str = "val_loss"
    """The metric that is watched."""
    factor: float = 0.1
    """New rate = old rate · factor."""
    min_delta: float = 1e-4
    """Smaller changes are no improvement."""
    mode: Literal["auto", "min", "max"] = "auto"
    """auto: max for accuracies and the like, min for losses and errors."""
    cooldown: int = 0
    """Epochs after a drop in which patience does not count."""
    min_lr: float = 0.0
    """The rate is never lowered below this."""

    def __post_init__(self) -> None:
        if not 0 < self.factor < 1:
            raise ConfigError(f"plateau.factor lies in (0, 1), got {self.factor}")
        for name in ("patience", "min_delta", "cooldown", "min_lr"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ConfigError(f"plateau.{name} is not negative, got {value}")


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointRecipe:
    """What is kept on the way, beside what resuming needs."""

    every_steps: int | None = None
    """Also save for resuming every so many steps, not only after each epoch."""
    keep: Literal["none", "best", "all"] = "none"
    """Extra copies after an epoch: none, the best so far, or every epoch's."""
    monitor: str = "val_loss"
    """`best` by this metric."""
    mode: Literal["auto", "min", "max"] = "auto"
    """auto: max for accuracies and the like, min for losses and errors."""
    name: str = "{epoch:02d}-{val_loss:.2f}"
    """Name of the copies; fields are `epoch`, `step` and the metrics of the epoch."""
    weights_only: bool = False
    """Copies hold the weights alone, not the optimiser."""

    def __post_init__(self) -> None:
        if self.every_steps is not None and self.every_steps < 1:
            raise ConfigError(f"checkpoint.every_steps is at least 1, got {self.every_steps}")


@dataclass(frozen=True, slots=True, kw_only=True)
class TransferRecipe:
    """What a training begins with that was learnt elsewhere, and how much of it may change."""

    source: str = ""
    """A run's folder, a file of weights, or `timm:NAME`. Empty: fresh weights."""
    freeze: int | Literal["all"] = 0
    """How many stages of the network, from the picture on, keep their weights and statistics; all:
    everything but the last layer does. What begins fresh beside weights that were carried over
    always learns."""
    decay: float | None = None
    """Factor from the rate of a stage to that of the stage before it, so that what is general
    changes least (Howard and Ruder 2018, arXiv 1801.06146); the last layer has the full rate.
    None: 0.5 where there is a source, else 1."""
    norms: Literal["learn", "keep"] = "learn"
    """keep: all batch norms keep their statistics, scales and shifts, as small batches want it."""

    def __post_init__(self) -> None:
        if isinstance(self.freeze, int) and self.freeze < 0:
            raise ConfigError(f"transfer.freeze is 0 stages or more, or all, got {self.freeze}")
        if self.decay is not None and not 0 < self.decay <= 1:
            raise ConfigError(f"transfer.decay lies in (0, 1], got {self.decay}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """All that decides a run."""

    task: str = "auto"
    """classify, multilabel, regress or segment. auto: from the kind of target."""
    model: str = "auto"
    """A name that `neocog models` lists, `package.module:factory`, or a network in a line of the
    words that `neocog models line` lists. auto: `cnn`; with `engine.minutes` the network and size
    that will be best when they are over."""
    model_args: dict[str, Scalar] = field(default_factory=dict)
    """Keyword arguments of the factory: `--set model_args.width=64`."""
    seed: int = 0
    """Decides everything random."""
    tensorboard: bool = False
    """Also write TensorBoard files (needs `pip install neocog[tensorboard]`)."""
    data: DataRecipe = field(default_factory=DataRecipe)
    """Where the pictures come from."""
    augment: AugmentRecipe = field(default_factory=AugmentRecipe)
    """What a training picture may go through."""
    loss: LossRecipe = field(default_factory=LossRecipe)
    """What is made small."""
    optim: OptimRecipe = field(default_factory=OptimRecipe)
    """How weights move."""
    schedule: ScheduleRecipe = field(default_factory=ScheduleRecipe)
    """How the rate moves."""
    engine: EngineRecipe = field(default_factory=EngineRecipe)
    """How long and on what."""
    stop: StopRecipe = field(default_factory=StopRecipe)
    """Early stopping."""
    plateau: PlateauRecipe = field(default_factory=PlateauRecipe)
    """Lower the rate on a plateau."""
    checkpoint: CheckpointRecipe = field(default_factory=CheckpointRecipe)
    """What is kept on the way."""
    transfer: TransferRecipe = field(default_factory=TransferRecipe)
    """What it begins with."""
