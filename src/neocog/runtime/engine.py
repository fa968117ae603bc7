"""What answers: a trained network in some library's hands. Floor 3, room runtime.

Imports floors 0 and 1 and NumPy. All engines are one function, `layers.Predictor`: raw samples in,
probabilities or numbers out, resize and normalisation inside. They differ in who computes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from neocog.described import Described

__all__ = ["KINDS", "Engine", "Kind"]

Kind = Literal["torch", "onnxruntime", "openvino"]
KINDS: tuple[Kind, ...] = ("torch", "onnxruntime", "openvino")


class Engine(Protocol):
    """A trained network that answers. Calls may come from any one thread at a time."""

    @property
    def kind(self) -> Kind:
        """Whose arithmetic it is."""

    @property
    def settings(self) -> dict[str, Any]:
        """How it computes, for people and metrics: `threads`, `layout`, `precision`, …"""

    @property
    def described(self) -> Described:
        """What goes in and comes out."""

    @property
    def digest(self) -> str:
        """SHA-256 of what it computes with, as hexadecimal: of the weights, or of the file."""

    @property
    def dtypes(self) -> tuple[str, ...]:
        """NumPy names of the types that samples may have: `uint8` for pictures."""

    def __call__(self, samples: NDArray[Any]) -> NDArray[Any]:
        """Raw samples → answers.

        Args:
            samples: B×C×h×w uint8 of any height and width; B×C×L and B×C×D×H×W of a type in
                `dtypes`, as large as the network takes them.

        Returns:
            B×K float32: probabilities, or numbers in the targets' units; B×K×h×w where pictures are
            answered for whole.

        Raises:
            ValueError: samples of another type or shape.
        """
