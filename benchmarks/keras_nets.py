"""The same nets in Keras, channels last, as its documentation writes them.

Padding is `same` where PyTorch pads by hand: with stride 2 it falls on another side of the picture,
which costs the same. The number of parameters is checked against the original.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import keras
from figures import CLASSES
from keras import layers

if TYPE_CHECKING:
    from figures import Figure

__all__ = ["build"]


def build(figure: Figure, facts: dict[str, Any]) -> keras.Model:
    """The figure's net.

    Raises:
        SystemExit: it is not the net that the other sides train.
    """
    keras.utils.set_random_seed(0)
    inputs = keras.Input((figure.size, figure.size, figure.channels))
    makers = {"twoconv": _two_conv, "lenet5": _lenet5, "resnet18": _resnet18, "loop": _linear}
    if figure.name == "speednet":
        outputs = _speednet(inputs, facts["widths"])
    else:
        outputs = makers[figure.name](inputs)
    model = keras.Model(inputs, outputs)
    found = sum(
        math.prod(weight.shape)
        for weight in model.weights
        if "moving" not in weight.path and "seed" not in weight.path
    )
    # Keras leaves out batch norm scales that never move; the original has them, fixed at 1.
    fixed = _fixed_scales(model)
    if found + fixed != facts["parameters"]:
        raise SystemExit(
            f"the Keras copy of {figure.name} has {found + fixed:,} parameters, "
            f"the original {facts['parameters']:,}: bring keras_nets.py up to date"
        )
    return model


def _fixed_scales(model: keras.Model) -> int:
    return sum(
        math.prod(layer.beta.shape)
        for layer in model.layers
        if isinstance(layer, layers.BatchNormalization) and not layer.scale
    )


def _linear(x: Any) -> Any:
    return layers.Dense(CLASSES)(layers.Flatten()(x))


def _two_conv(x: Any) -> Any:
    for width in (32, 64):
        x = layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = layers.MaxPooling2D(2)(x)
    return layers.Dense(CLASSES)(layers.Flatten()(x))


def _lenet5(x: Any) -> Any:
    x = layers.Conv2D(6, 5, padding="same", activation="tanh")(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Conv2D(16, 5, activation="tanh")(x)
    x = layers.AveragePooling2D(2)(x)
    x = layers.Flatten()(layers.Conv2D(120, 5, activation="tanh")(x))
    x = layers.Dense(84, activation="tanh")(x)
    return layers.Dense(CLASSES)(x)


def _norm(x: Any, momentum: float = 0.9, *, scale: bool = True) -> Any:
    return layers.BatchNormalization(momentum=momentum, epsilon=1e-5, scale=scale)(x)


def _conv(x: Any, width: int, kernel: int = 3, stride: int = 1) -> Any:
    return layers.Conv2D(width, kernel, stride, padding="same", use_bias=False)(x)


def _block(x: Any, width: int, stride: int) -> Any:
    shortcut = x
    if stride > 1:
        shortcut = _norm(_conv(x, width, 1, stride))
    y = layers.ReLU()(_norm(_conv(x, width, 3, stride)))
    y = _norm(_conv(y, width))
    return layers.ReLU()(layers.Add()([y, shortcut]))


def _resnet18(x: Any) -> Any:
    x = layers.ReLU()(_norm(_conv(x, 64)))
    for stage, width in enumerate((64, 128, 256, 512)):
        x = _block(x, width, 1 if stage == 0 else 2)
        x = _block(x, width, 1)
    return layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x))


def _speednet(x: Any, widths: list[int]) -> Any:
    first = layers.Conv2D(8 * x.shape[-1], 2, use_bias=False)
    first.trainable = False
    x = layers.Activation("gelu")(first(x))
    for width in widths:
        x = layers.MaxPooling2D(2)(_conv(x, width))
        x = layers.Activation("gelu")(_norm(x, 0.6, scale=False))
        x = layers.Activation("gelu")(_norm(_conv(x, width), 0.6, scale=False))
    x = layers.Dense(CLASSES, use_bias=False)(layers.GlobalMaxPooling2D()(x))
    return layers.Rescaling(1 / widths[-1])(x)
