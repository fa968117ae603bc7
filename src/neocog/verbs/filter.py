"""What named kernels make of a picture. Floor 5, room verbs."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import torch

from neocog import kernels, plots
from neocog.data.decode import Limits, Undecodable, recolor
from neocog.data.looks import Order
from neocog.data.workers import look_at_all
from neocog.errors import ConfigError, near
from neocog.verbs.plan import write_figure
from neocog.verbs.result import Result

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence

    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from neocog.kernels import Kernel, Padding

__all__ = ["Answer", "answers", "figure", "filter_image"]

_LUMA = (0.299, 0.587, 0.114)
"""Brightness of red, green and blue (ITU-R 601-2)."""
_SAME = 1e-4
"""Weights that add up to 1 within this keep the brightness of a picture."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What one kernel made of a picture."""

    kernel: Kernel
    """The kernel."""
    values: NDArray[np.float32]
    """H×W×C; the picture's own values lie in 0…1."""

    @property
    def signed(self) -> bool:
        """Whether it is a map around 0 rather than a picture again.

        A kernel without negative weights answers with a picture, and so does one whose weights add
        up to 1, as sharpening does: what it throws beyond 0…1 is an overshoot.
        """
        weight = self.kernel.weight
        return bool((weight < 0).any()) and abs(float(weight.sum()) - 1) > _SAME

    def shown(self) -> plots.Filtered:
        """As it is drawn; of a signed map in colour, the brightness."""
        high, wide, channels = self.values.shape
        if self.signed:
            values = self.values @ np.array(_LUMA, np.float32) if channels == 3 else self.values
            what = ", brightness" if channels == 3 else ""
            return self._drawn(values.reshape(high, wide), f"{high}×{wide}{what}")
        beyond = float(((self.values < 0) | (self.values > 1)).mean())
        cut = f", {100 * beyond:.2g} % of it cut off at 0 and 1" if beyond else ""
        pixels = np.rint(np.clip(self.values, 0, 1) * 255).astype(np.uint8)
        return self._drawn(pixels[..., 0] if channels == 1 else pixels, f"{high}×{wide}{cut}")

    def _drawn(self, values: Any, remark: str) -> plots.Filtered:
        return plots.Filtered(
            name=self.kernel.name,
            values=values,
            signed=self.signed,
            rows=self.kernel.rows,
            divisor=self.kernel.divisor,
            remark=remark,
        )

    def json(self) -> dict[str, Any]:
        """The kernel, the shape of its answer, C×H×W, and three numbers of it."""
        high, wide, channels = self.values.shape
        return {
            "name": self.kernel.name,
            "matrix": self.kernel.weight.tolist(),
            "shape": [channels, high, wide],
            "min": float(self.values.min()),
            "max": float(self.values.max()),
            "mean": float(self.values.mean(dtype=np.float64)),
        }


def answers(
    pixels: NDArray[np.uint8],
    names: Sequence[str],
    *,
    pad: Padding = "zeros",
    stride: int = 1,
) -> list[Answer]:
    """What each kernel makes of a picture, by the convolution that networks use.

    Args:
        pixels: H×W×C, uint8; taken as 0…1. Each channel is filtered by itself.
        names: names of kernels, or matrices: `neocog.kernels.kernel`.
        pad: what is assumed around the picture.
        stride: pixels from one answer to the next.

    Raises:
        ConfigError: an unknown name (with the near one), no matrix, or a kernel too large for the
            picture and this padding.
    """
    if pad not in get_args(kernels.Padding):
        raise ConfigError(f"no padding is called {pad!r}", near(pad, get_args(kernels.Padding)))
    if stride < 1:
        raise ConfigError(f"stride is at least 1, got {stride}")
    if not names:
        raise ConfigError(
            "which kernel?", f"--kernel sharpen, or a matrix; known: {', '.join(kernels.KERNELS)}"
        )
    wanted = [kernels.kernel(name) for name in names]
    image = torch.from_numpy(pixels.astype(np.float32) / 255).permute(2, 0, 1)[None].contiguous()
    return [
        Answer(
            kernel=one,
            values=kernels.correlate(image, one.weight, pad=pad, stride=stride)[0]
            .permute(1, 2, 0)
            .numpy(),
        )
        for one in wanted
    ]


def figure(
    image: str | os.PathLike[str] | NDArray[np.uint8],
    *names: str,
    pad: Padding = "zeros",
    stride: int = 1,
    grey: bool = False,
) -> Figure:
    """A picture beside what kernels make of it.

    Args:
        image: a picture's file, or its pixels, H×W or H×W×C uint8.
        names: names of kernels, or matrices such as `0 -1 0; -1 5 -1; 0 -1 0`.
        pad: as for `answers`.
        stride: as for `answers`.
        grey: turn the picture grey first.

    Raises:
        ConfigError: as `answers` does.
        DataError: the file cannot be read, or holds no picture.
    """
    pixels = _pixels(image, grey)
    return _figure(pixels, answers(pixels, names, pad=pad, stride=stride))


def filter_image(
    image: Path, names: Sequence[str], *, pad: Padding, stride: int, grey: bool, out: Path | None
) -> Result:
    """The figure as a file, and the numbers of every answer.

    Args:
        image: a picture's file.
        names: as for `figure`.
        pad: as for `figure`.
        stride: as for `figure`.
        grey: as for `figure`.
        out: an .svg or .png file. None: a .png in the current directory, named after the picture,
            that was not there before.

    Raises:
        ConfigError: as `figure` does, a file of another ending, or the picture's own.
        DataError: as `figure` does.
        RunError: the figure cannot be written.
    """
    if out is not None:
        _refuse_own(image, out)
    pixels = _pixels(image, grey)
    found = answers(pixels, names, pad=pad, stride=stride)
    place = _free(Path(f"{image.stem}-filtered.png")) if out is None else out
    write_figure(place, _figure(pixels, found))
    high, wide, channels = pixels.shape
    values = {
        "path": str(image),
        "shape": [channels, high, wide],
        "pad": pad,
        "stride": stride,
        "kernels": [one.json() for one in found],
        "out": str(place),
    }
    return Result(json=values, lines=[*_table(found), "", f"drawn: {place}"])


def _pixels(image: str | os.PathLike[str] | NDArray[np.uint8], grey: bool) -> NDArray[np.uint8]:
    """H×W×C, uint8, one channel or three; files are decoded by a helper process."""
    if isinstance(image, np.ndarray):
        pixels = image[..., None] if image.ndim == 2 else image
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3):
            raise ConfigError(
                f"expected H×W or H×W×C uint8 with 1 or 3 channels, "
                f"found {image.dtype} of {'×'.join(map(str, image.shape))}"
            )
    else:
        path = str(image)
        order = Order(limits=Limits(deep=True))
        with contextlib.closing(look_at_all([(path, None)], order)) as found:
            look = next(iter(found))
        if not look.usable:
            raise Undecodable(path, look.remarks[-1])
        pixels = look.array()
    return recolor(pixels, 1) if grey else pixels


def _figure(pixels: NDArray[np.uint8], found: Sequence[Answer]) -> Figure:
    high, wide, channels = pixels.shape
    return plots.filters(
        pixels[..., 0] if channels == 1 else pixels,
        [one.shown() for one in found],
        remark=f"{high}×{wide}, {'grey' if channels == 1 else 'colour'}",
    )


def _refuse_own(image: Path, out: Path) -> None:
    """The figure never takes the place of the picture, whatever the two are called.

    Raises:
        ConfigError: they are one file.
    """
    same = False
    with contextlib.suppress(OSError):  # one of them is not there
        same = out.samefile(image)
    if same:
        raise ConfigError(
            f"--out {out} is the picture itself, which the figure would overwrite",
            "name another file, or give no --out",
        )


def _free(path: Path) -> Path:
    """The path, or one with a number behind that nothing has yet."""
    number, free = 1, path
    while free.exists():
        number += 1
        free = path.with_stem(f"{path.stem}-{number}")
    return free


def _table(found: Sequence[Answer]) -> list[str]:
    """One line a kernel: shape, smallest, largest and mean answer; a white pixel is 1."""
    rows = [("kernel", "answer", "min", "max", "mean")]
    for one in found:
        numbers = one.json()
        shape = "×".join(map(str, numbers["shape"]))
        three = (f"{numbers[key]:.3f}".replace("-", "−") for key in ("min", "max", "mean"))
        rows.append((numbers["name"], shape, *three))
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    return [
        f"{row[0]:{widths[0]}}  {row[1]:{widths[1]}}  "
        + "  ".join(f"{text:>{wide}}" for text, wide in zip(row[2:], widths[2:], strict=True))
        for row in rows
    ]
