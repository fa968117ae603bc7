"""The predictor as a program for every size: checked against the predictor itself."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from neocog.export.program import AnySize, Program
from neocog.layers import Fit, Predictor, scaling
from neocog.records import InputSpec

SIDES = st.integers(1, 90)


@given(size=st.tuples(SIDES, SIDES), target=st.tuples(st.integers(1, 40), st.integers(1, 40)))
@settings(max_examples=150, deadline=None)
def test_any_size_is_fit(size: tuple[int, int], target: tuple[int, int]) -> None:
    """Bit for bit, also where a picture has the right size, or was scaled before."""
    numbers = torch.arange(2 * 3 * size[0] * size[1]) * 7919 % 251
    images = numbers.view(2, 3, *size).to(torch.uint8)
    assert torch.equal(AnySize(target)(images), Fit(target)(images).float())


@given(side=st.integers(1, 300), cover=st.integers(1, 120), kept=st.integers(1, 120))
@settings(max_examples=100, deadline=None)
def test_scaling_an_axis_is_what_torch_does(side: int, cover: int, kept: int) -> None:
    kept = min(kept, cover)
    weights = scaling(side, cover, kept, like=torch.empty(0))
    assert weights.shape == (kept, side)
    torch.testing.assert_close(weights.sum(1), torch.ones(kept))
    eye = torch.eye(side, dtype=torch.float64)[:, None, :, None].expand(side, 1, side, 2)
    other = F.interpolate(eye, (cover, 2), mode="bilinear", antialias=True)[:, 0, :, 0].T
    top = (cover - kept) // 2
    torch.testing.assert_close(weights, other[top : top + kept].float(), rtol=0, atol=1e-6)


def _predictor(size: tuple[int, ...], *, whole: bool = False, views: str = "one") -> Predictor:
    torch.manual_seed(0)
    conv = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}[len(size)]
    layers: list[nn.Module] = [conv(3, 4, 3, padding=1), nn.ReLU()]
    if not whole:
        layers += [nn.Flatten(2), nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(4, 5)]
    spec = InputSpec(
        channels=3,
        size=size,
        mean=(0.4, 0.5, 0.6),
        std=(0.2, 0.3, 0.25),
        whole=whole,
        views=views,  # type: ignore[arg-type]
    )
    return Predictor(nn.Sequential(*layers).eval(), spec, lambda z: z.softmax(1)).eval()


@pytest.mark.parametrize("views", ["one", "mirror+shift"])
@pytest.mark.parametrize("shape", [(3, 21, 13), (3, 8, 8), (3, 9, 30)])
def test_one_trace_answers_for_every_size(shape: tuple[int, ...], views: str) -> None:
    predictor = _predictor((8, 8), views=views)
    dynamic = (dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC),)
    sample = torch.zeros(2, 3, 12, 10, dtype=torch.uint8)
    traced = torch.export.export(Program(predictor), (sample,), dynamic_shapes=dynamic).module()
    x = torch.randint(0, 256, (4, *shape), dtype=torch.uint8)
    torch.testing.assert_close(traced(x), predictor(x), rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(40,), (4, 5, 6)])
def test_signals_and_volumes_are_never_scaled(size: tuple[int, ...]) -> None:
    predictor = _predictor(size)
    x = torch.randint(0, 256, (2, 3, *size), dtype=torch.uint8)
    torch.testing.assert_close(Program(predictor)(x), predictor(x))
    assert isinstance(Program(predictor).fit, nn.Identity)


def test_whole_pictures_keep_their_size() -> None:
    predictor = _predictor((16, 16), whole=True)
    x = torch.randint(0, 256, (1, 3, 23, 31), dtype=torch.uint8)
    torch.testing.assert_close(Program(predictor)(x), predictor(x))
