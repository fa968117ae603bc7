"""Which layers of a network make its answer. Floor 2, room models.

Imports floor 0, analysis, layers and torch. Works on any `nn.Module`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from neocog.analysis.trace import empty_copy, stand_ins, tensors_in
from neocog.errors import NeocogError
from neocog.layers import OUTPUTS, output_layer

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["TRANSPOSED", "output_layers"]

TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""Kinds of layers whose rows are what comes in, and whose columns are what goes out."""

_Seen = list[tuple[str, nn.Module, Tensor]]
"""Path, layer and answer, in the order of running."""


def output_layers(network: nn.Module, sample: Sequence[int]) -> tuple[str, ...]:
    """Paths of the layers whose rows are the outputs: of the main answer, then of auxiliary heads.

    Found by running the network once without memory; where that cannot be done, by the order of
    registration. An answer with positions, B×K×H×W, may be the sum of several layers' maps, and
    those may pass transposed convolutions from K maps to K: then these follow the main one, which
    is the last that was registered.

    Args:
        network: stays as it is.
        sample: C×H×W, or with one or three axes behind the channels.
    """
    seen: _Seen = []
    try:
        twin = empty_copy(network).train()
        for path, part in twin.named_modules():
            if isinstance(part, (*OUTPUTS, *TRANSPOSED)):
                part.register_forward_hook(_noting(seen, path))
        # All of it: what is frozen belongs to the graph, too.
        for parameter in twin.parameters():
            parameter.requires_grad_(parameter.is_floating_point())
        with torch.enable_grad():
            forward = getattr(twin, "forward_auxiliary", twin)
            answers = list(tensors_in(forward(*stand_ins([(2, *sample)], twin))))
    except (NeocogError, RuntimeError, TypeError, ValueError, AssertionError):
        return (output_layer(network),)
    if answers and answers[0].dim() > 2:
        found = _summed(answers[0], seen)
        if found:
            registered = output_layer(network)
            return tuple(sorted(found, key=lambda path: path != registered))
    seen = [one for one in seen if isinstance(one[1], OUTPUTS)]
    if not seen:
        return (output_layer(network),)
    known = [next((path for path, _, one in seen if one is answer), "") for answer in answers]
    # What comes behind the layer, such as a mean over the picture, hides which one it was.
    last = [path for path, _, _ in seen if path not in known[1:]][-1:]
    main = known[0] if known and known[0] else (last or [output_layer(network)])[0]
    return tuple(dict.fromkeys([main, *(path for path in known[1:] if path)]))


def _noting(seen: _Seen, path: str) -> Callable[..., None]:
    def note(module: nn.Module, _given: Any, answer: Any) -> None:
        if isinstance(answer, Tensor):
            seen.append((path, module, answer))

    return note


def _summed(answer: Tensor, seen: _Seen) -> list[str]:
    """The layers that are met first on the way from the answer back, in the order of running.

    Layers of another number of maps end the way; transposed convolutions that keep it do not.
    """
    made = {one.grad_fn: (path, part) for path, part, one in seen}
    maps = answer.shape[1]
    found, known, ahead = set(), set(), [answer.grad_fn]
    while ahead:
        node = ahead.pop()
        if node is None or node in known:
            continue
        known.add(node)
        path, part = made.get(node, ("", None))
        if isinstance(part, TRANSPOSED) and part.in_channels == part.out_channels == maps:
            found.add(path)
            ahead.append(node.next_functions[0][0])
        elif part is None:
            ahead += [before for before, _ in node.next_functions]
        elif isinstance(part, OUTPUTS) and _rows(part) == maps:
            found.add(path)
    return [path for path, _, _ in seen if path in found]


def _rows(layer: nn.Module) -> int:
    weight = layer.weight
    assert isinstance(weight, Tensor)
    return int(weight.shape[0])
