"""Ask a copy of a network about variants of some pictures. Floor 1, explain.

Imports floor 0, torch, and `analysis`. The copy runs in evaluation mode, so that what it says about
one picture does not depend on the others in the batch.
"""

from __future__ import annotations

import contextlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from neocog import chance
from neocog.analysis.remark import times
from neocog.analysis.twin import copied, own_chance, place
from neocog.errors import ConfigError, NeocogError
from neocog.explain.capture import Captured, capture
from neocog.explain.why.target import chosen

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from torch import Tensor, nn

    from neocog.explain.why.target import Target

__all__ = ["Probe", "fitting", "parts", "probing", "slopes"]

_MOST, _PIXELS = 16, 16 * 96 * 96
"""Pictures in one pass, and pixels over all of them, of methods that need many: what is held grows
with both."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Probe:
    """A copy of a network, and the pictures and the numbers of its answers that are asked about."""

    twin: nn.Module
    """The copy."""
    x: Tensor
    """B×C×H×W, where the copy is and of its type."""
    target: Target
    """Which number of the answer."""
    key: int
    """What a forward that draws draws by; the same in every pass."""

    def run(
        self, pictures: Tensor, rows: Tensor | slice, layers: Iterable[str] = ()
    ) -> tuple[Tensor, Captured]:
        """One number for each of N pictures, and all that the pass said.

        Args:
            pictures: N×C×H×W, variants of those in `x`.
            rows: which picture of `x` each of them is a variant of.
            layers: what to keep, as `capture` takes it.
        """
        with own_chance(pictures.device, self.key):
            captured = capture(self.twin, pictures, layers)
        output, target = captured.output, self.target
        if not output.dim() or len(output) != len(pictures):
            raise NeocogError(
                f"{len(pictures)} pictures went in, an answer {times(output.shape)} came out",
                "explain a network that answers for each picture of a batch, B×K",
            )
        if isinstance(target, torch.Tensor) and target.dim():
            if len(target) != len(self.x):
                raise ConfigError(
                    f"expected one output for each of {len(self.x)} pictures, found {len(target)}",
                    "name one for all of them, or as many as there are pictures",
                )
            target = target.to(pictures.device)[rows]
        return chosen(output, target), captured

    def rows(self, row: int, count: int) -> Tensor:
        """`rows` of `run` for `count` variants of one picture."""
        return torch.full((count,), row, device=self.x.device)

    def answer(self, pictures: Tensor, rows: Tensor | slice) -> Tensor:
        """N numbers on the CPU, double precision, without gradients; see `run`."""
        with torch.no_grad():
            return self.run(pictures, rows)[0].cpu().double()

    def gradient(self, pictures: Tensor, rows: Tensor | slice) -> tuple[Tensor, Tensor]:
        """Of each number with respect to its picture, N×C×H×W, and the N numbers; see `run`."""
        given = pictures.detach().clone().requires_grad_(True)
        numbers, _ = self.run(given, rows)
        (found,) = slopes(numbers, [given])
        return found, numbers.detach()


def slopes(numbers: Tensor, by: list[Tensor]) -> list[Tensor]:
    """The gradient of the sum of `numbers`; zero for what they do not depend on.

    Raises:
        NeocogError: the numbers have none, or it is not finite.
    """
    if not numbers.requires_grad:
        raise NeocogError(
            "the answer has no gradient at the picture",
            "explain the number before it is rounded, compared or detached",
        )
    # Some may be None, which the signature of `grad` does not know.
    found: Sequence[Tensor | None] = torch.autograd.grad(numbers.sum(), by, allow_unused=True)
    filled = [
        torch.zeros_like(one) if slope is None else slope
        for slope, one in zip(found, by, strict=True)
    ]
    if not all(bool(torch.isfinite(one).all()) for one in filled):
        raise NeocogError(
            "the gradient of the answer is not finite",
            "look for weights or pixels that are not finite, or explain the number before a "
            "logarithm or a root",
        )
    return filled


def fitting(x: Tensor, batch: int | None = None) -> int:
    """Pictures in one pass: those asked for, else as many as are held without trouble.

    >>> import torch
    >>> fitting(torch.zeros(1, 3, 32, 32)), fitting(torch.zeros(1, 3, 224, 224))
    (16, 2)
    """
    if batch is not None:
        return batch
    return max(1, min(_MOST, _PIXELS // max(1, math.prod(x.shape[2:]))))


def parts(count: int, batch: int) -> Iterator[slice]:
    """The first `batch` of `count` things, the next, and so on.

    Raises:
        ConfigError: `batch` is no number of pictures.
    """
    if batch < 1:
        raise ConfigError(f"expected at least one picture in a pass, found batch={batch}")
    return (slice(at, min(at + batch, count)) for at in range(0, count, batch))


@contextlib.contextmanager
def probing(module: nn.Module, x: Tensor, target: Target, seed: int = 0) -> Iterator[Probe]:
    """A probe of a copy, whatever mode the caller is in; gradients are enabled within.

    Args:
        module: any network of pictures; it is not changed.
        x: B×C×H×W, as the network takes them; not changed.
        target: which number of the answer.
        seed: of what the network draws.

    Raises:
        ConfigError: no pictures.
        NeocogError: the network cannot be copied.
    """
    if x.dim() != 4 or not x.numel():
        raise ConfigError(
            f"expected pictures B×C×H×W, found {times(x.shape)}",
            "give at least one picture; x[None] makes a batch of one",
        )
    # Not in the caller's inference mode or autocast: tensors made there have no or rough gradients.
    with torch.inference_mode(False), torch.enable_grad():
        twin = copied(module)
        for part in twin.modules():
            # They watch or change gradients, not what the network computes, and do not go together
            # with answers that are written over.
            part._backward_hooks.clear()
            part._backward_pre_hooks.clear()
        device, dtype = place(twin)
        given = x.detach().clone().to(device, dtype)
        with torch.autocast(device.type, enabled=False):
            yield Probe(twin=twin, x=given, target=target, key=chance.key(seed, "explain"))
