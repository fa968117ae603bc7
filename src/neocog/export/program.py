"""The predictor as a program for every size of picture, for torch.export. Floor 4, room export.

Imports layers, geometry, bundle and torch. `layers.Fit` asks for sizes in Python, which would be
decided once and for all while a program is traced; here sizes stay tensors. All else is the
predictor's own.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from neocog.geometry import MARGIN
from neocog.layers import scaling

if TYPE_CHECKING:
    from neocog.layers import Predictor
    from neocog.records import InputSpec

__all__ = [
    "METADATA",
    "AnySize",
    "Masked",
    "Program",
    "example",
    "program_of",
    "remedy",
    "traced",
]

METADATA = "neocog.json"
"""Name of the metadata among the files of a `torch.export` archive."""


class AnySize(nn.Module):
    """`layers.Fit` for sizes that are not known yet: B×C×h×w uint8 → B×C×H×W float32."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """Scale and crop; a picture of the right size is multiplied by ones and zeros."""
        high, wide = images.shape[-2:]
        tall, broad = self._cover(
            *(torch.scalar_tensor(n, dtype=torch.int64) for n in (high, wide))
        )
        down = scaling(high, tall, self.size[0], like=images)
        right = scaling(wide, broad, self.size[1], like=images)
        return down @ images.float() @ right.T

    def _cover(self, high: Tensor, wide: Tensor) -> tuple[Tensor, Tensor]:
        """`geometry.covering_size` of sizes in tensors."""
        height, width = self.size
        least = (round(height * MARGIN), round(width * MARGIN))
        narrow = high * least[1] <= wide * least[0]  # its height decides
        across = ((2 * wide * least[0] + high) // (2 * high)).clamp(min=least[1])
        along = ((2 * high * least[1] + wide) // (2 * wide)).clamp(min=least[0])
        same = (high == height) & (wide == width)
        tall = torch.where(same, height, torch.where(narrow, least[0], along))
        broad = torch.where(same, width, torch.where(narrow, across, least[1]))
        return tall, broad


class Program(nn.Module):
    """What is exported: raw samples → answers, of any number and, for pictures, any size.

    Args:
        predictor: of the bundle, on the CPU; its parts are shared, none is changed.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        size = predictor.input.size
        pictures = len(size) == 2 and not predictor.input.whole
        self.fit = AnySize((size[0], size[1])) if pictures else nn.Identity()
        self.predictor = predictor

    def forward(self, samples: Tensor) -> Tensor:
        """As `Predictor.forward`; where pictures are answered for whole, all in one piece."""
        return self.predictor.of_fitted(self.fit(samples))


class Masked(nn.Module):
    """A program that answers for each pixel, and also says which class is the most probable.

    Args:
        program: B×C×h×w uint8 → B×K×h×w.
    """

    def __init__(self, program: nn.Module) -> None:
        super().__init__()
        self.program = program

    def forward(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        """→ probabilities B×K×h×w; the class of each pixel, B×h×w uint8, of equals the first."""
        shares = self.program(samples)
        return shares, shares.argmax(1).to(torch.uint8)


def program_of(predictor: Predictor) -> nn.Module:
    """What a file computes, in every form: of masks the class of each pixel, too."""
    program = Program(predictor)
    return (Masked(program) if predictor.input.whole else program).eval()


def example(spec: InputSpec, dtype: torch.dtype = torch.uint8) -> Tensor:
    """Samples to trace a program with: two, and pictures of another size than the network's, so
    that no size is taken for a constant.

    >>> from neocog.records import InputSpec
    >>> example(InputSpec(channels=1, size=(8, 8), mean=(0.5,), std=(0.2,))).shape
    torch.Size([2, 1, 16, 24])
    """
    size = spec.size
    if len(size) == 2:
        # Multiples of a stride that are multiples of larger ones, too, would be taken for such.
        size = (size[0] + 8, size[1] + 16)
    return torch.zeros(2, spec.channels, *size, dtype=dtype)


def traced(
    program: nn.Module, spec: InputSpec, dtype: torch.dtype = torch.uint8
) -> torch.export.ExportedProgram:
    """What a program does, for any number of samples and, of pictures, any height and width.

    Args:
        program: one of `Program`, in evaluation mode on the CPU.
        spec: what it takes.
        dtype: of the samples; pictures are uint8.
    """
    axes = (0, 2, 3) if len(spec.size) == 2 else (0,)
    # Not named and bounded: halvings that round up leave conditions that always hold, but that
    # torch cannot prove.
    shapes = (dict.fromkeys(axes, torch.export.Dim.DYNAMIC),)
    with torch.no_grad():
        return torch.export.export(
            program, (example(spec, dtype),), dynamic_shapes=shapes, strict=False
        )


def remedy(error: BaseException) -> str:
    """What to do about a network that `traced` cannot follow."""
    if re.search(r"size\(\)\[0\].*specialized it to be a constant", str(error)):
        return "its forward fixes the number of samples: write x.shape[0] instead of len(x)"
    return "its forward may not depend on the numbers in its input"
