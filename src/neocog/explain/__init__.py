"""Look inside any network, and ask why it answers what it answers. Floor 1; imports floor 0, NumPy,
torch, and `analysis`, whose graph says what ran.

Everything works on any `nn.Module`, on a copy of it: weights, buffers, training flags, hooks and
gradients of the one that is handed over stay as they are. Six corners:

- `why`: what the pixels had to do with an answer, and what must be hidden for it to change;
- `unit`: the arithmetic of one activation, back to the pixels;
- `chain`: the chain rule from the loss back to one weight;
- `look`: kernels, feature maps, exciting patches, dreams, embeddings;
- `still`: whether answers hold still while pictures change;
- `landscape`: the loss around the weights.

The names below are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neocog.explain.chain.formula import formula
    from neocog.explain.chain.paths import weight_paths
    from neocog.explain.chain.text import paths_text
    from neocog.explain.landscape.plane import filter_directions, path_directions, project
    from neocog.explain.landscape.surface import Samples, profile, surface
    from neocog.explain.look.dream import Restraint, dream
    from neocog.explain.look.embedding import features, principal, tsne
    from neocog.explain.look.exciting import exciting
    from neocog.explain.look.first_layer import first_kernels
    from neocog.explain.look.maps import feature_maps
    from neocog.explain.recording import record
    from neocog.explain.still.steady import picture_curves, steadiness
    from neocog.explain.unit.telling import path_told, told
    from neocog.explain.unit.trace import trace_unit
    from neocog.explain.why.hide import must_be_hidden, must_be_seen
    from neocog.explain.why.methods import METHODS, explain_answer
    from neocog.explain.why.sanity import randomised_weights

_LAZY = {
    "METHODS": "why.methods",
    "Restraint": "look.dream",
    "Samples": "landscape.surface",
    "dream": "look.dream",
    "exciting": "look.exciting",
    "explain_answer": "why.methods",
    "feature_maps": "look.maps",
    "features": "look.embedding",
    "filter_directions": "landscape.plane",
    "first_kernels": "look.first_layer",
    "formula": "chain.formula",
    "must_be_hidden": "why.hide",
    "must_be_seen": "why.hide",
    "path_directions": "landscape.plane",
    "path_told": "unit.telling",
    "paths_text": "chain.text",
    "picture_curves": "still.steady",
    "principal": "look.embedding",
    "profile": "landscape.surface",
    "project": "landscape.plane",
    "randomised_weights": "why.sanity",
    "record": "recording",
    "steadiness": "still.steady",
    "surface": "landscape.surface",
    "told": "unit.telling",
    "trace_unit": "unit.trace",
    "tsne": "look.embedding",
    "weight_paths": "chain.paths",
}
"""Name → module below this one."""

__all__ = [
    "METHODS",
    "Restraint",
    "Samples",
    "dream",
    "exciting",
    "explain_answer",
    "feature_maps",
    "features",
    "filter_directions",
    "first_kernels",
    "formula",
    "must_be_hidden",
    "must_be_seen",
    "path_directions",
    "path_told",
    "paths_text",
    "picture_curves",
    "principal",
    "profile",
    "project",
    "randomised_weights",
    "record",
    "steadiness",
    "surface",
    "told",
    "trace_unit",
    "tsne",
    "weight_paths",
]


def __getattr__(name: str) -> Any:
    """Load a public name when it is first used (PEP 562)."""
    if name not in _LAZY:
        raise AttributeError(f"module 'neocog.explain' has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_LAZY[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
