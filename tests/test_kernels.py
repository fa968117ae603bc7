"""Named kernels against SciPy, and against what their names promise."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from neocog.errors import ConfigError
from neocog.kernels import KERNELS, named_kernel


def apply(name: str, x: np.ndarray) -> np.ndarray:
    weight = named_kernel(name).double()[None, None]
    return F.conv2d(torch.from_numpy(x)[None, None], weight, padding=1)[0, 0].numpy()


@pytest.mark.parametrize("name", KERNELS)
def test_agrees_with_scipy(name: str) -> None:
    x = np.random.default_rng(0).normal(size=(6, 7))
    expected = ndimage.correlate(x, named_kernel(name).double().numpy(), mode="constant")
    np.testing.assert_allclose(apply(name, x), expected, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "total"),
    [("identity", 1), ("mean", 1), ("gaussian", 1), ("sharpen", 1), ("outline", 0)]
    + [(f"sobel-{way}", 0) for way in ("left", "right", "up", "down")]
    + [(f"shift-{way}", 1) for way in ("left", "right", "up", "down")]
    + [("edge-vertical", 0), ("edge-horizontal", 0)],
)
def test_sums(name: str, total: int) -> None:
    """Blurs, shifts and sharpening keep the mean of a picture; what looks for edges ignores it."""
    assert float(named_kernel(name).sum()) == pytest.approx(total)


def test_sobel_agrees_with_scipys() -> None:
    x = np.random.default_rng(1).normal(size=(8, 8))
    inside = (slice(1, -1), slice(1, -1))
    for name, axis, sign in (
        *(("sobel-down", 0, 1), ("sobel-up", 0, -1)),
        *(("sobel-right", 1, 1), ("sobel-left", 1, -1)),
    ):
        expected = sign * ndimage.sobel(x, axis=axis)
        np.testing.assert_allclose(apply(name, x)[inside], expected[inside], atol=1e-12)


def test_shifts_move_the_picture() -> None:
    x = np.random.default_rng(2).normal(size=(5, 5))
    for name, move in (
        *(("shift-down", (1, 0)), ("shift-up", (-1, 0))),
        *(("shift-right", (0, 1)), ("shift-left", (0, -1))),
    ):
        np.testing.assert_array_equal(apply(name, x), ndimage.shift(x, move, order=0))


def test_edges_answer_across_the_edge_only() -> None:
    x = np.zeros((5, 6))
    x[:, 3:] = 1  # a vertical edge
    inside = (slice(1, -1), slice(1, -1))
    assert apply("edge-vertical", x)[inside].tolist() == [[0, 1, 1, 0]] * 3
    assert not apply("edge-horizontal", x)[inside].any()
    assert not apply("edge-vertical", x.T.copy())[inside].any()


def test_unknown_name() -> None:
    with pytest.raises(ConfigError, match="did you mean 'gaussian'"):
        named_kernel("gausian")
