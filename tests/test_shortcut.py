"""What is answered in PyTorch's place is what PyTorch answers on a processor."""

from __future__ import annotations

import itertools

import pytest
import torch

from neocog.analysis.shortcut import run

NORM = torch.ops.aten.native_batch_norm.default
BACK = torch.ops.aten.native_batch_norm_backward.default


def facts(found: object) -> list[object]:
    assert isinstance(found, tuple)
    return [None if one is None else (tuple(one.shape), one.dtype, one.stride()) for one in found]


@pytest.mark.parametrize(
    ("shape", "dtype", "training", "affine", "last"),
    [
        case
        for case in itertools.product(
            [(4, 6), (4, 6, 9), (2, 6, 5, 7), (2, 6, 3, 4, 5)],
            [torch.float32, torch.bfloat16, torch.float64],
            [True, False],
            [True, False],
            [True, False],
        )
        if not case[4] or len(case[0]) == 4
    ],
)
def test_batch_norm_and_its_gradient(
    shape: tuple[int, ...], dtype: torch.dtype, training: bool, affine: bool, last: bool
) -> None:
    kind = torch.float32 if dtype == torch.bfloat16 else dtype
    layout = torch.channels_last if last else torch.contiguous_format

    def given(device: str) -> tuple[object, ...]:
        source = torch.empty(shape, dtype=dtype, device=device).to(memory_format=layout)
        vectors = [torch.ones(shape[1], dtype=kind, device=device) for _ in range(4)]
        scale = vectors[:2] if affine else [None, None]
        return (source, *scale, *vectors[2:], training, 0.1, 1e-5)

    real, meant = NORM(*given("cpu")), run(NORM, given("meta"), {})
    assert facts(meant) == facts(real)
    for mask in ([True, affine, affine], [False, affine, affine], [True, False, False]):

        def back(device: str, found: tuple[torch.Tensor, ...], mask=mask) -> tuple[object, ...]:
            source, scale, _, mean, var, *_ = given(device)
            return (found[0], source, scale, mean, var, *found[1:], training, 1e-5, mask)

        expected = facts(BACK(*back("cpu", real)))
        got = facts(run(BACK, back("meta", meant), {}))
        # What was not asked for is not looked at.
        assert [one for one, asked in zip(got, mask, strict=True) if asked] == [
            one for one, asked in zip(expected, mask, strict=True) if asked
        ]
