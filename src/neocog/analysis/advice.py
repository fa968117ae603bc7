"""Remarks that help: where a network does not fit its pictures, or itself. Floor 1, room analysis.

Standard library, floor 0 and this room. Everything is read from the graph that ran; no remark goes
by the name of a class. A network that is as its paper has it, at its paper's size, gets none that
its authors would deny: that VGG's first linear layer outweighs the rest is said, for it is so.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from neocog.analysis import fit, flow
from neocog.analysis.remark import Remark, Subject, times
from neocog.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from neocog.analysis.field import Fields
    from neocog.analysis.graph import Graph
    from neocog.analysis.summary import Layer

__all__ = ["CODES", "Remark", "advice"]

CODES = {
    "short-sighted": "the receptive field is smaller than the picture or the objects",
    "steep-stem": "the stem divides small pictures at once",
    "unread": "rows or columns of a map that nothing reads",
    "padded": "a kernel that lies mostly in the padding",
    "heavy-linear": "one linear layer outweighs all the rest",
    "dead-end": "layers whose answers reach no output",
    "idle": "parameters that nothing reads",
    "misaligned": "branches on different grids are joined",
    "useless-bias": "a bias in front of batch norm",
}
"""All kinds of remarks."""


def advice(
    graph: Graph,
    fields: Fields,
    layers: Sequence[Layer],
    *,
    objects: Sequence[int] = (),
    trained: Collection[str] = (),
) -> tuple[Remark, ...]:
    """What the owner of a network would want to know before training it.

    Args:
        graph: the network, as it runs in use.
        fields: what its tensors see.
        layers: its lines.
        objects: how large the objects in the pictures are along each axis, in pixels; without them
            the receptive field is compared with the whole picture.
        trained: names of parameters that training reads though use does not, those of auxiliary
            heads.

    Raises:
        ConfigError: objects with another number of axes than the pictures.

    >>> import torch
    >>> from neocog.analysis.field import fields
    >>> from neocog.analysis.summary import layers
    >>> from neocog.analysis.trace import trace
    >>> graph = trace(torch.nn.MaxPool2d(3, 2), (1, 8, 14, 14))
    >>> known = fields(graph)
    >>> [one.sentence for one in advice(graph, known, layers(graph, known)) if one.code == "unread"]
    ['MaxPool2d (MaxPool2d, 3×3/2): 1 of 14 rows and columns is never read']
    """
    if objects and len(objects) != len(fields.sizes):
        raise ConfigError(
            f"expected the objects' size along {len(fields.sizes)} axes, found {times(objects)}",
            f"the pictures are {times(fields.sizes)}",
        )
    subject = Subject(graph, fields, layers)
    return (
        *fit.short_sighted(subject, objects),
        *fit.steep(subject),
        *fit.unread(subject),
        *fit.padded(subject),
        *flow.heavy(subject),
        *flow.dead_ends(subject),
        *flow.idle(subject, trained),
        *flow.misaligned(subject),
        *flow.useless_bias(subject),
    )
