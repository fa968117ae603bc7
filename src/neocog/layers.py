"""What torch.nn lacks. Floor 1; imports floor 0 and torch.

`Predictor` is the one way from pixels to an answer: evaluation, prediction, explanation, export
and serving all call it, so that none of them can preprocess differently.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from neocog.geometry import LAYOUTS, MARGIN, covering_size, noun, size_text
from neocog.records import FULL_SCALE

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from neocog.records import InputSpec, Views

__all__ = [
    "MARGIN",
    "OUTPUTS",
    "Fit",
    "Normalize",
    "Predictor",
    "covering_size",
    "materialize",
    "output_layer",
    "scaling",
]

OUTPUTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d)
"""Kinds of layers whose rows can be the outputs of a network."""


def output_layer(network: nn.Module) -> str:
    """Path of the layer whose rows are the outputs, as far as the order of registration tells: the
    last `nn.Linear` or convolution; empty where there is none, or the network is that layer.

    >>> output_layer(nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
    '2'
    """
    found = ""
    for name, part in network.named_modules():
        if isinstance(part, OUTPUTS):
            found = name
    return found


class Fit(nn.Module):
    """Scale (bilinear, antialiased) and crop in the centre, to the network's input size.

    Pictures of the right size pass untouched. B×C×h×w uint8 → B×C×H×W uint8, or float32 in 0…255
    units where they had to be scaled: rounded to whole numbers, answers would hang on the last bit
    of a machine's arithmetic. Signals and volumes must have the right size.
    """

    def __init__(self, size: tuple[int, ...]) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """B×C×h×w uint8 → B×C×H×W uint8 or float32.

        Raises:
            ValueError: a signal or volume of another size.
        """
        current = tuple(int(side) for side in images.shape[-len(self.size) :])
        if current == self.size:
            return images
        if len(self.size) != 2:
            found = size_text(current)
            raise ValueError(f"expected {noun(self.size)}s of {size_text(self.size)}, got {found}")
        height, width = self.size
        cover = covering_size((current[0], current[1]), (height, width))
        if cover == current:
            top, left = (cover[0] - height) // 2, (cover[1] - width) // 2
            return images[..., top : top + height, left : left + width]
        down = scaling(current[0], cover[0], height, like=images)
        right = scaling(current[1], cover[1], width, like=images)
        return down @ images.float() @ right.T


def scaling(side: int, cover: int | Tensor, kept: int, *, like: Tensor) -> Tensor:
    """The matrix that scales an axis, bilinear and antialiased, and keeps its centre: kept×side.

    Row i has the triangle weights 1 − |d|/s of the pixels around its place, made to add up to 1,
    with d the distance in pixels and s = max(1, side/cover), as Pillow and
    `F.interpolate(antialias=True)` have them. Products of matrices are the same in every library
    that a network can be exported to; their own ways of scaling are not.

    Args:
        side: pixels of the axis.
        cover: pixels that it is scaled to; a tensor where a program is traced for every size.
        kept: pixels of the centre that are wanted, `cover` at most.
        like: a tensor on the device to compute on.

    >>> scaling(4, 2, 2, like=torch.empty(0))
    tensor([[0.4286, 0.4286, 0.1429, 0.0000],
            [0.0000, 0.1429, 0.4286, 0.4286]])
    """
    device = like.device
    # Twice the distance, in units of 1/cover: whole numbers, so that equal distances are equal.
    rows = 2 * (torch.arange(kept, device=device) + (cover - kept) // 2) + 1
    columns = 2 * torch.arange(side, device=device) + 1
    distance = columns * cover - rows[:, None] * side
    largest = torch.clamp(torch.as_tensor(cover), min=side)
    weights = (1 - distance.abs().float() / (2 * largest).float()).clamp(min=0)
    return weights / weights.sum(dim=1, keepdim=True)


class Normalize(nn.Module):
    """(x / 255 − mean) / std per channel; uint8 or float in 0…255 units → float32.

    Signals and volumes are divided by the `FULL_SCALE` of their type instead, floats by nothing.

    Args:
        mean: per channel, in units of 0…1.
        std: per channel, in units of 0…1.
        dims: axes behind the channels: 2 for pictures, 1 for signals, 3 for volumes.
        order: of the result in memory; the usual one: that of what is given.
    """

    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        dims: int = 2,
        order: torch.memory_format = torch.preserve_format,
    ) -> None:
        super().__init__()
        self.dims, self.order = dims, order
        shape, full = (1, len(mean), *(1,) * dims), 255 if dims == 2 else 1
        self.register_buffer("mean", torch.tensor(mean).view(shape) * full, persistent=False)
        self.register_buffer("scale", 1 / (torch.tensor(std).view(shape) * full), persistent=False)

    @classmethod
    def of(cls, input: InputSpec) -> Normalize:
        """For a network: as it wants its input, in the order of memory that it needs."""
        order = torch.contiguous_format if input.contiguous else torch.preserve_format
        return cls(input.mean, input.std, len(input.size), order)

    def forward(self, images: Tensor) -> Tensor:
        """B×C×H×W → B×C×H×W float32; B×C×L and B×C×D×H×W likewise."""
        # One copy, worked on in place: for small batches, memory is what this costs.
        images_in = images.to(torch.float32, copy=True, memory_format=self.order)
        if self.dims != 2:
            images_in.div_(FULL_SCALE[str(images.dtype).removeprefix("torch.")])
        values, mean, scale = images_in, self.mean, self.scale
        if self.order is torch.channels_last and images.shape[1] > 1:
            # By whole rows: the channels of a pixel are too few for a processor's vectors.
            values = images_in.permute(0, 2, 3, 1).view(len(images), images.shape[2], -1)
            mean, scale = (one.flatten().repeat(images.shape[-1]) for one in (mean, scale))
        values.sub_(mean).mul_(scale)
        return images_in


def materialize(network: nn.Module, input: InputSpec) -> None:
    """Let lazy layers (`nn.LazyLinear`, …) take the sizes that they find in the first samples they
    are given: two black ones. Other networks stay untouched.

    Args:
        network: each part is in the mode that it was in, afterwards.
        input: what it takes.
    """
    lazy = [one for one in (*network.parameters(), *network.buffers()) if is_lazy(one)]
    if not lazy:
        return
    learning = [part for part in network.modules() if part.training]
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, input.channels, *input.size, device=lazy[0].device))
    finally:
        for part in learning:
            part.training = True


@dataclass(frozen=True, slots=True)
class _View:
    """One thing that is looked at."""

    weight: float
    """All of them add up to 1."""
    pictures: Tensor
    """B×C×H×W."""
    mirrored: bool = False
    """Left to right."""
    moved: int = 0
    """Pixels down and right, after it was mirrored."""

    def back(self, outputs: Tensor) -> Tensor:
        """What was said of the view, for the picture: answers for each pixel go back to where the
        pixels were, the border repeated; one for the whole picture stays."""
        if outputs.dim() != 4:
            return outputs
        if self.moved:
            down, right = outputs.shape[-2:]
            padded, at = F.pad(outputs, (1, 1, 1, 1), mode="replicate"), 1 + self.moved
            outputs = padded[..., at : at + down, at : at + right]
        return outputs.flip(-1) if self.mirrored else outputs


def _views(pictures: Tensor, which: Views) -> Iterator[_View]:
    """What `InputSpec.views` describes.

    The picture is mirrored first and moved then, so that a picture and its mirror image have the
    same views. A move fills the border by reflection, which does not repeat the edge (`reflect` of
    NumPy and torch); where a side is one pixel there is nothing to reflect, and edges are repeated.

    Args:
        pictures: B×C×H×W, as the network takes them.
        which: what is looked at.
    """
    sides = [pictures, pictures.flip(-1)] if which in ("mirror", "mirror+shift") else [pictures]
    share = 1 / len(sides)
    for mirrored, side in enumerate(sides):
        if which not in ("shift", "mirror+shift"):
            yield _View(share, side, bool(mirrored))
            continue
        height, width = side.shape[-2:]
        padding = "reflect" if min(height, width) > 1 else "replicate"
        padded = F.pad(side, (1, 1, 1, 1), mode=padding)
        yield _View(share / 2, side, bool(mirrored))
        yield _View(share / 4, padded[..., :height, :width], bool(mirrored), 1)
        yield _View(share / 4, padded[..., 2:, 2:], bool(mirrored), -1)


_TILE, _OVERLAP = 1024, 128
"""Pixels a side of the largest piece that is looked at at once where pictures are answered for
whole, and how far each reaches into its neighbours; both are multiples of every stride in use."""


def _pieces(side: int) -> list[tuple[int, int, int, int]]:
    """How a side is covered: where each piece begins and ends, and of that the part which counts.

    >>> _pieces(1000), _pieces(1500)
    ([(0, 1000, 0, 1000)], [(0, 1024, 0, 896), (768, 1500, 896, 1500)])
    """
    if side <= _TILE:
        return [(0, side, 0, side)]
    step = _TILE - 2 * _OVERLAP
    found = []
    for first in range(0, side - 2 * _OVERLAP, step):
        end = min(side, first + _TILE)
        found.append(
            (
                first,
                end,
                first + (_OVERLAP if first else 0),
                side if end == side else end - _OVERLAP,
            )
        )
        if end == side:
            break
    return found


def in_pieces(images: Tensor, answer: Callable[[Tensor], Tensor]) -> Tensor:
    """What is said of every pixel of a picture: at once, or piece by piece where it is large.

    Exact where the overlap of the pieces is at least the radius of the receptive field; beyond it a
    network sees the border of a piece as it sees that of a picture.

    Args:
        images: B×C×h×w.
        answer: B×C×h×w → B×K×h×w.
    """
    if max(images.shape[-2:]) <= _TILE:
        return answer(images)
    whole: Tensor | None = None
    for top, bottom, first, last in _pieces(images.shape[-2]):
        for left, right, start, end in _pieces(images.shape[-1]):
            found = answer(images[..., top:bottom, left:right])
            if whole is None:  # once: pieces and their sum would take twice as much
                whole = found.new_empty((*found.shape[:2], *images.shape[-2:]))
            kept = found[..., first - top : last - top, start - left : end - left]
            whole[..., first:last, start:end] = kept
    assert whole is not None
    return whole


class Predictor(nn.Module):
    """From raw pictures to answers: fit, normalise, network, decode; always fp32, always eval.

    The network's outputs are averaged over the views of `input.views`, one call for each.

    Args:
        network: B×C×H×W float32 → outputs. Put into evaluation mode by whoever owns it.
        input: size, normalisation and views.
        decode: outputs → probabilities or numbers, from the task.
    """

    def __init__(
        self, network: nn.Module, input: InputSpec, decode: Callable[[Tensor], Tensor]
    ) -> None:
        super().__init__()
        self.input = input
        self.fit = nn.Identity() if input.whole else Fit(input.size)
        self.normalize = Normalize.of(input)
        self.network = network
        self.decode = decode

    def outputs(self, images: Tensor) -> Tensor:
        """B×C×h×w uint8 → what the network gives, the mean over the views, not decoded (B×K).

        Where pictures are answered for whole, B×K×h×w: a large picture in pieces that overlap, and
        of a mirrored view the answer is mirrored back.

        Signals B×C×L and volumes B×C×D×H×W may have any type of `FULL_SCALE`.

        Raises:
            ValueError: another type, another number of axes or of channels, or signals or volumes
                of another size.
        """
        dims = len(self.input.size)
        kinds = ("uint8",) if dims == 2 else tuple(FULL_SCALE)
        if str(images.dtype).removeprefix("torch.") not in kinds or images.dim() != dims + 2:
            raise ValueError(
                f"expected {' or '.join(kinds)} B×{LAYOUTS[dims]}, got {images.dtype} with shape "
                f"{tuple(images.shape)}"
            )
        if images.shape[1] != self.input.channels:
            raise ValueError(
                f"the network takes {self.input.channels} channel(s), got {images.shape[1]}"
            )
        if self.input.whole:
            return in_pieces(images, lambda piece: self._answers(self.normalize(piece)))
        return self._answers(self.normalize(self.fit(images)))

    def _answers(self, pictures: Tensor) -> Tensor:
        """The mean over the views of pictures as the network takes them."""
        views = _views(pictures, self.input.views)
        if self.input.contiguous:  # a window of a picture is not
            views = (replace(one, pictures=one.pictures.contiguous()) for one in views)
        # Not `sum`: it starts with 0, which would turn −0 into +0.
        terms = (one.weight * one.back(self.network(one.pictures)) for one in views)
        mean: Tensor = reduce(torch.add, terms)
        return mean

    def of_fitted(self, images: Tensor) -> Tensor:
        """As `forward`, for samples that have the network's size already, as `fit` gives them."""
        return self.decode(self._answers(self.normalize(images)))

    def forward(self, images: Tensor) -> Tensor:
        """B×C×h×w uint8, or signals or volumes, → B×K probabilities, or numbers in the target's
        units."""
        return self.decode(self.outputs(images))
