"""What a served model takes and answers, in the terms of the Open Inference Protocol. Floor 4, room
serve; imports described's nouns.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from neocog.records import FULL_SCALE

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from neocog.described import Described
    from neocog.runtime.engine import Kind
    from neocog.serve.limits import Limits

__all__ = ["DATATYPES", "Output", "Spec", "spec_of"]

DATATYPES = {"uint8": "UINT8", "int16": "INT16", "float32": "FP32"}
"""NumPy's names → the protocol's."""
_PLATFORMS: dict[Kind, str] = {
    "torch": "pytorch_safetensors",
    "onnxruntime": "onnxruntime_onnx",
    "openvino": "openvino_ir",
}
"""Engine → platform; the protocol has them as `<project>_<format>`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Output:
    """One thing that a model answers."""

    name: str
    """`probabilities`, `numbers` or `mask`."""
    dtype: str
    """NumPy's name of its type."""
    shape: tuple[int, ...]
    """-1 where it is only known with the request: samples, height, width."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """What one model takes and answers, in the protocol's terms; see `spec_of`."""

    name: str
    """In the path of a request."""
    platform: str
    """Whose arithmetic on what kind of file."""
    input: str
    """`images` or `samples`."""
    dtypes: tuple[str, ...]
    """NumPy's names of the types that samples may have."""
    channels: int
    """Of a sample."""
    size: tuple[int | None, ...]
    """Sides of a sample; None: any."""
    outputs: tuple[Output, ...]
    """The network's own answer first; all others follow from it."""
    classes: tuple[str, ...]
    """Names of its K columns; empty where they are no classes."""
    batch: int
    """Samples of one request, at most."""

    @property
    def whole(self) -> bool:
        """The answer has the height and width of the picture."""
        return len(self.outputs[0].shape) > 2

    def plain(self) -> dict[str, Any]:
        """As JSON has it."""
        return dataclasses.asdict(self)

    @staticmethod
    def of(plain: Mapping[str, Any]) -> Spec:
        """What `plain` made, also after a trip through JSON."""
        values: dict[str, Any] = dict(plain)
        values |= {name: tuple(plain[name]) for name in ("dtypes", "size", "classes")}
        values["outputs"] = tuple(
            Output(name=one["name"], dtype=one["dtype"], shape=tuple(one["shape"]))
            for one in plain["outputs"]
        )
        return Spec(**values)


def spec_of(
    described: Described,
    name: str,
    limits: Limits,
    *,
    dtypes: Sequence[str] = (),
    kind: Kind = "torch",
) -> Spec:
    """The spec of a trained model.

    Args:
        described: by its bundle or file.
        name: under which it is served.
        limits: for the batch.
        dtypes: `Engine.dtypes`; none: uint8 for pictures, else all of `FULL_SCALE`.
        kind: `Engine.kind`.
    """
    pictures = len(described.input.size) == 2
    labelled = described.task.name != "regress"
    columns = len(described.classes)
    pixels = (-1, -1) if described.input.whole else ()
    main = "probabilities" if labelled else "numbers"
    outputs = [Output(name=main, dtype="float32", shape=(-1, columns, *pixels))]
    if pixels and labelled:
        outputs.append(Output(name="mask", dtype="uint8", shape=(-1, -1, -1)))
    return Spec(
        name=name,
        platform=_PLATFORMS[kind],
        input="images" if pictures else "samples",
        dtypes=tuple(dtypes) or (("uint8",) if pictures else tuple(FULL_SCALE)),
        channels=described.input.channels,
        size=(None, None) if pictures else described.input.size,
        outputs=tuple(outputs),
        classes=described.classes if labelled else (),
        batch=limits.batch,
    )
