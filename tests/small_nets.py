"""Small networks, one for each way in which a position can move: made for tests of the analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["NETS"]


class _Forward(nn.Module):
    """Layers by name and a function that joins them."""

    def __init__(self, run: Callable[..., Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            self.add_module(name, layer)
        self.out = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(self.run(self, x))
        return answer


def _conv(before: int = 4, after: int = 4, kernel: int | tuple[int, int] = 3, **more: object):  # type: ignore[no-untyped-def]
    return nn.Conv2d(before, after, kernel, **more)  # type: ignore[arg-type]


def _same(before: int = 4, after: int = 4, kernel: int = 3, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, stride, padding=kernel // 2)


def _unet() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        a = m.a(x)
        b = m.b(F.max_pool2d(a, 2))
        c = m.c(F.max_pool2d(b, 2))
        b = m.d(torch.cat([m.up1(c), b], 1))
        return m.e(torch.cat([m.up2(b), a], 1))

    up1, up2 = nn.ConvTranspose2d(4, 4, 2, 2), nn.ConvTranspose2d(4, 4, 2, 2)
    return _Forward(run, a=_same(3), b=_same(), c=_same(), d=_same(8), e=_same(8), up1=up1, up2=up2)


def _unet_cropped() -> nn.Module:
    """As in the paper: no padding, the skip is cropped to its centre."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        a = m.a(x)
        up = m.up(m.b(F.max_pool2d(a, 2)))
        gap = (a.shape[2] - up.shape[2]) // 2
        a = a[:, :, gap : gap + up.shape[2], gap : gap + up.shape[3]]
        return m.c(torch.cat([a, up], 1))

    up = nn.ConvTranspose2d(4, 4, 2, 2)
    return _Forward(run, a=_conv(3), b=_conv(), c=_conv(8), up=up)


def _aspp() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        pooled = m.p(F.adaptive_avg_pool2d(x, 1))
        pooled = F.interpolate(pooled, x.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([m.a(x), m.b(x), m.c(x), pooled], 1)

    return _Forward(
        run,
        stem=_same(3, stride=2),
        p=_conv(kernel=1),
        a=_conv(kernel=1),
        b=_conv(padding=2, dilation=2),
        c=_conv(padding=5, dilation=5),
    )


def _squeeze_excitation() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        gate = m.b(F.relu(m.a(x.mean((2, 3), keepdim=True)))).sigmoid()
        return m.last(x * gate)

    return _Forward(run, stem=_same(3), a=_conv(4, 2, 1), b=_conv(2, 4, 1), last=_same())


def _shuffle_units() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        left, right = m.stem(x).chunk(2, 1)
        x = torch.cat([left, m.a(right)], 1)
        b, c, h, w = x.shape
        x = x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w)
        first, *_ = x.split([3, 1], 1)
        return m.b(first)

    return _Forward(run, stem=_same(3), a=_same(2, 2), b=_same(3, stride=2))


def _branches() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        return torch.cat([m.a2(m.a1(x)), m.b(x), F.avg_pool2d(x, 3, 1, 1)], 1)

    return _Forward(
        run,
        stem=_conv(3, stride=2),
        a1=_conv(kernel=(1, 7), padding=(0, 3)),
        a2=_conv(kernel=(5, 1), padding=(2, 0)),
        b=_conv(kernel=1),
    )


def _residual(first: int, second: int) -> nn.Module:
    """Two branches of other jumps: what is joined is misaligned."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        a, b = m.a(x), m.b(x)
        size = min(a.shape[2], b.shape[2]), min(a.shape[3], b.shape[3])
        return m.c(a[:, :, : size[0], : size[1]] + b[:, :, : size[0], : size[1]])

    return _Forward(run, a=_conv(3, stride=first), b=_conv(3, stride=second), c=_conv())


def _windows(shift: int) -> nn.Module:
    """Attention within 4×4 windows, perhaps of a rolled picture."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.patch(x)
        b, c, h, w = x.shape
        rolled = torch.roll(x, (-shift, -shift), (2, 3)) if shift else x
        parts = rolled.view(b, c, h // 4, 4, w // 4, 4).permute(0, 2, 4, 3, 5, 1)
        parts = parts.reshape(-1, 16, c)
        query, key, value = m.qkv(parts).chunk(3, -1)
        parts = F.scaled_dot_product_attention(query, key, value)
        back = parts.reshape(b, h // 4, w // 4, 4, 4, c).permute(0, 5, 1, 3, 2, 4)
        back = back.reshape(b, c, h, w)
        if shift:
            back = torch.roll(back, (shift, shift), (2, 3))
        return m.last(x + back)

    return _Forward(run, patch=_conv(3, 4, 2, stride=2), qkv=nn.Linear(4, 12), last=_same())


def _lengths() -> nn.Module:
    """Features weighed by the length of the vector at each place."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.first(x)
        return m.last(x * torch.linalg.vector_norm(x, 2.0, dim=1, keepdim=True))

    return _Forward(run, first=_same(3), last=_same())


def _padded_windows() -> nn.Module:
    """Means over windows of 4×4 of a map that is padded to 8×8 and cropped to 7×7 again."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.first(x)
        y = F.pad(x, (0, 1, 0, 1)).unflatten(3, (2, 4)).unflatten(2, (2, 4))
        y = y.mean(dim=(3, 5), keepdim=True).expand(-1, -1, -1, 4, -1, 4)
        return m.last(x + y.flatten(4).flatten(2, 3)[:, :, :7, :7])

    return _Forward(run, first=_same(3), last=_same())


def _grid() -> nn.Module:
    """Attention over a sparse grid: elements 4 apart meet."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        b, c, h, w = x.shape
        parts = x.view(b, c, 4, h // 4, 4, w // 4).permute(0, 3, 5, 2, 4, 1)
        scores = m.q(parts.reshape(-1, 16, c)) @ m.k(parts.reshape(-1, 16, c)).transpose(1, 2)
        found = scores.softmax(-1) @ parts.reshape(-1, 16, c)
        back = found.reshape(b, h // 4, w // 4, 4, 4, c).permute(0, 5, 3, 1, 4, 2)
        return back.reshape(b, c, h, w)

    return _Forward(run, stem=_same(3), q=nn.Linear(4, 4), k=nn.Linear(4, 4))


def _transformer() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        words = m.patch(x).flatten(2).transpose(1, 2)
        words = torch.cat([m.token.weight[None].expand(len(x), -1, -1), words], 1)
        words = words + m.attention(*[m.norm(words)] * 3, need_weights=False)[0]
        return m.mlp(words)[:, 1:]

    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    return _Forward(
        run,
        patch=_conv(3, 8, 4, stride=4),
        token=nn.Embedding(1, 8),
        norm=nn.LayerNorm(8),
        attention=attention,
        mlp=nn.Linear(8, 8),
    )


def _words() -> nn.Module:
    """Patches as words without attention: each sees its own patch."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        words = m.norm(m.patch(x).flatten(2).transpose(1, 2))
        return F.gelu(m.mlp(words))

    return _Forward(run, patch=_conv(3, 8, 4, stride=4), norm=nn.LayerNorm(8), mlp=nn.Linear(8, 8))


def _back_to_map() -> nn.Module:
    """B×H×W×C and words become maps again."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        last = m.linear(m.stem(x).permute(0, 2, 3, 1))
        b, h, w, c = last.shape
        return m.conv(last.reshape(b, h * w, c).transpose(1, 2).reshape(b, c, h, w))

    return _Forward(run, stem=_same(3, stride=2), linear=nn.Linear(4, 4), conv=_same())


def _focus() -> nn.Module:
    """Every second row and column, four times, as channels."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        parts = [x[..., i::2, j::2] for i in (0, 1) for j in (0, 1)]
        return m.b(m.a(torch.cat(parts, 1)))

    return _Forward(run, a=_same(12), b=_same())


def _merge() -> nn.Module:
    """Swin's patch merging, channels last."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x).permute(0, 2, 3, 1)
        b, h, w, c = x.shape
        x = x.reshape(b, h // 2, 2, w // 2, 2, c).permute(0, 1, 3, 4, 2, 5).flatten(3)
        return m.linear(x).permute(0, 3, 1, 2)

    return _Forward(run, stem=_same(3), linear=nn.Linear(16, 8))


def _written_into() -> nn.Module:
    """Halves written into a new tensor, then added to in place."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        whole = torch.zeros(len(x), 8, *x.shape[2:])
        whole[:, :4] = x
        whole[:, 4:] = m.a(x)
        whole[:, :2] += x[:, :2]
        return m.b(whole)

    return _Forward(run, stem=_same(3), a=_same(), b=_same(8))


def _stripes() -> nn.Module:
    """Rows written alternately: each row of the answer has its own past."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        whole = torch.zeros(len(x), 4, 2 * x.shape[2], x.shape[3])
        whole[:, :, ::2] = x
        whole[:, :, 1::2] = m.a(x)
        return m.b(whole)

    return _Forward(run, stem=_same(3, stride=2), a=_same(), b=_same())


def _shifted() -> nn.Module:
    """Channels move by a pixel each way, as in shift networks."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        found = torch.zeros_like(x)
        found[:, 0:1, :-1] = x[:, 0:1, 1:]
        found[:, 1:2, 1:] = x[:, 1:2, :-1]
        found[:, 2:3, :, :-1] = x[:, 2:3, :, 1:]
        found[:, 3:4, :, 1:] = x[:, 3:4, :, :-1]
        return m.a(found)

    return _Forward(run, stem=_conv(3, stride=2), a=_conv(kernel=1))


def _strips() -> nn.Module:
    """Means over rows and over columns, added: a cross."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.last(x.mean(2, keepdim=True) + x.mean(3, keepdim=True))

    return _Forward(run, stem=_same(3), last=_conv(kernel=1))


def _unbound() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        red, green, _ = m.a(x).unbind(1)
        return m.b(torch.stack([red, green], 1))

    return _Forward(run, a=_same(3, 3, 5), b=_same(2))


def _flipped() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.b(torch.cat([x, x.flip(3)], 1))

    return _Forward(run, a=_same(3, stride=2), b=_same(8))


def _turned() -> nn.Module:
    """A picture and itself, rows and columns exchanged."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.b(x.transpose(2, 3))

    return _Forward(run, a=_conv(3, kernel=(5, 1), padding=(2, 0)), b=_same())


def _pyramid() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        levels = [x]
        for size in (1, 2, 3, 6):
            small = F.adaptive_avg_pool2d(x, size)
            levels.append(F.interpolate(small, x.shape[2:], mode="bilinear", align_corners=True))
        return m.last(torch.cat(levels, 1))

    return _Forward(run, stem=_same(3, stride=2), last=_conv(20, kernel=1))


def _resized(mode: str, factor: float, **more: object) -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        return m.b(F.interpolate(m.a(x), scale_factor=factor, mode=mode, **more))  # type: ignore[arg-type]

    return _Forward(run, a=_same(3), b=_same())


def _unfolded() -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        b, _, h, w = x.shape
        return m.last(F.unfold(x, 3, padding=1).view(b, -1, h, w))

    return _Forward(run, stem=_same(3), last=_conv(36, kernel=1))


def _pooled_back(kernel: int, padding: int, ceil: bool) -> nn.Module:
    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.a(x)
        y, index = F.max_pool2d(x, kernel, 2, padding, ceil_mode=ceil, return_indices=True)
        return m.b(F.max_unpool2d(y, index, kernel, 2, padding, output_size=x.shape[2:]))

    return _Forward(run, a=_same(3), b=_same())


def _tensor_split() -> nn.Module:
    """Halves of the picture, each its own way."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        left, right = m.stem(x).chunk(2, 3)
        return torch.cat([m.a(left), m.b(right)], 3)

    return _Forward(run, stem=_same(3), a=_same(), b=_same(kernel=5))


def _product_of_maps() -> nn.Module:
    """Non-local block (Wang et al. 2018): every position with every other."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        b, c, h, w = x.shape
        scores = m.q(x).flatten(2).transpose(1, 2) @ m.k(x).flatten(2)
        found = m.v(x).flatten(2) @ scores.softmax(-1).transpose(1, 2)
        return m.last(x + found.view(b, c, h, w))

    one = {name: _conv(kernel=1) for name in "qkv"}
    return _Forward(run, stem=_same(3, stride=2), last=_same(), **one)


def _axial() -> nn.Module:
    """Attention along rows only."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        x = m.stem(x)
        b, c, h, w = x.shape
        rows = x.permute(0, 2, 3, 1).reshape(b * h, w, c)
        rows = F.scaled_dot_product_attention(m.q(rows), m.k(rows), rows)
        return m.last(rows.reshape(b, h, w, c).permute(0, 3, 1, 2))

    return _Forward(run, stem=_same(3), last=_same(), q=nn.Linear(4, 4), k=nn.Linear(4, 4))


def _mixer() -> nn.Module:
    """MLP along the words."""

    def run(m: nn.Module, x: Tensor) -> Tensor:
        words = m.patch(x).flatten(2)
        return m.mix(words).transpose(1, 2)

    return _Forward(run, patch=_conv(3, 8, 4, stride=4), mix=nn.Linear(36, 36))


def _transposed(**geometry: int) -> nn.Module:
    return nn.Sequential(_same(3), nn.ConvTranspose2d(4, 4, **geometry), _same())


def _seq(*layers: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(*layers)


PICTURE = (1, 3, 24, 24)
ODD = (1, 3, 23, 27)

NETS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "dilated": (
        _seq(_conv(3, dilation=2), _conv(dilation=3), _conv(padding=4, dilation=4)),
        PICTURE,
    ),
    "dilated stride": (_seq(_conv(3, stride=2, dilation=3), _conv(padding=2, dilation=2)), ODD),
    "even kernels": (_seq(_conv(3, kernel=4, stride=2, padding=1), _conv(kernel=2)), ODD),
    "stride over kernel": (_seq(_conv(3, kernel=2, stride=3), _conv(kernel=1, stride=2)), ODD),
    "depthwise": (
        _seq(_same(3, 4), _conv(4, 4, groups=4, stride=2, padding=1), _conv(kernel=1)),
        ODD,
    ),
    "grouped": (_seq(_same(3, 4), _conv(4, 8, groups=2, padding=1), _conv(8, 4)), PICTURE),
    "asymmetric": (_seq(_conv(3, kernel=(1, 7), padding=(0, 3)), _conv(kernel=(7, 1))), ODD),
    "padding same": (_seq(_conv(3, kernel=5, padding="same"), _conv(padding="same")), ODD),
    "circular": (_seq(_conv(3, kernel=5, padding=2, padding_mode="circular"), _same()), ODD),
    "reflect": (_seq(_conv(3, kernel=7, padding=3, padding_mode="reflect"), _same()), ODD),
    "replicate": (_seq(_conv(3, padding=1, padding_mode="replicate", stride=2), _same()), ODD),
    "circular pad": (_seq(nn.CircularPad2d((3, 1, 2, 4)), _conv(3, stride=2)), ODD),
    "reflection pad": (_seq(nn.ReflectionPad2d((3, 1, 2, 4)), _conv(3, stride=2)), ODD),
    "zero pad": (_seq(nn.ZeroPad2d((3, 1, 0, 4)), _conv(3, kernel=5, stride=3)), ODD),
    "cropping pad": (_seq(nn.ZeroPad2d((-3, 1, 2, -4)), _conv(3, stride=2)), ODD),
    "ceil pools": (
        _seq(_same(3), nn.MaxPool2d(3, 2, ceil_mode=True), nn.AvgPool2d(2, 2, ceil_mode=True)),
        ODD,
    ),
    "padded pools": (_seq(_same(3), nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(3, 2, 1), _same()), ODD),
    "dilated pool": (_seq(_same(3), nn.MaxPool2d(3, 2, 1, dilation=2), _same()), ODD),
    "pool over all": (_seq(_same(3), nn.MaxPool2d((3, 27)), _same()), ODD),
    "power pool": (_seq(_same(3), nn.LPPool2d(2, 3, 2)), ODD),
    "adaptive": (_seq(_same(3), nn.AdaptiveAvgPool2d((7, 5)), _same()), ODD),
    "adaptive max": (_seq(_same(3), nn.AdaptiveMaxPool2d((6, 8))), PICTURE),
    "adaptive up": (_seq(_conv(3, stride=8), nn.AdaptiveAvgPool2d((7, 5)), _same()), PICTURE),
    "global": (_seq(_same(3), nn.AdaptiveAvgPool2d(1), _conv(kernel=1)), PICTURE),
    **{
        f"transposed {k}/{s}": (
            lambda k=k, s=s: _transposed(kernel_size=k, stride=s),  # type: ignore[misc]
            (1, 3, 9, 11),
        )
        for k in (2, 3, 4)
        for s in (2, 3)
    },
    "transposed padded": (
        lambda: _transposed(kernel_size=4, stride=2, padding=1, output_padding=1),
        (1, 3, 9, 11),
    ),
    "transposed dilated": (
        lambda: _transposed(kernel_size=3, stride=2, padding=2, dilation=3, output_padding=1),
        (1, 3, 9, 11),
    ),
    "transposed gaps": (lambda: _transposed(kernel_size=1, stride=3), (1, 3, 9, 11)),
    "transposed grouped": (
        lambda: _transposed(kernel_size=3, stride=1, padding=1, groups=2),
        (1, 3, 9, 11),
    ),
    "u-net": (_unet, PICTURE),
    "u-net cropped": (_unet_cropped, (1, 3, 28, 36)),
    "aspp": (_aspp, ODD),
    "squeeze-excitation": (_squeeze_excitation, PICTURE),
    "shuffle units": (_shuffle_units, ODD),
    "channel shuffle": (_seq(_same(3), nn.ChannelShuffle(2), _same()), ODD),
    "pixel shuffle": (_seq(_same(3, 8), nn.PixelShuffle(2), _same(2)), (1, 3, 9, 11)),
    "pixel shuffle 3": (_seq(_same(3, 9), nn.PixelShuffle(3), _same(1, 1, 5)), (1, 3, 7, 8)),
    "pixel unshuffle": (_seq(_same(3), nn.PixelUnshuffle(2), _same(16)), PICTURE),
    "branches": (_branches, ODD),
    "residual": (lambda: _residual(2, 2), ODD),
    "residual misaligned": (lambda: _residual(1, 2), ODD),
    "lengths": (_lengths, (1, 3, 9, 12)),
    "padded windows": (_padded_windows, (1, 3, 7, 7)),
    "windows": (lambda: _windows(0), (1, 3, 16, 24)),
    "shifted windows": (lambda: _windows(2), (1, 3, 16, 24)),
    "grid attention": (_grid, (1, 3, 8, 12)),
    "axial attention": (_axial, (1, 3, 8, 12)),
    "transformer": (_transformer, PICTURE),
    "words": (_words, PICTURE),
    "mixer": (_mixer, PICTURE),
    "back to map": (_back_to_map, ODD),
    "focus": (_focus, PICTURE),
    "merge": (_merge, PICTURE),
    "written into": (_written_into, ODD),
    "stripes": (_stripes, ODD),
    "shifted channels": (_shifted, ODD),
    "strips": (_strips, ODD),
    "unbound": (_unbound, ODD),
    "flipped": (_flipped, ODD),
    "turned": (_turned, ODD),
    "pyramid": (_pyramid, ODD),
    "halves": (_tensor_split, PICTURE),
    "non-local": (_product_of_maps, PICTURE),
    "unfold": (_unfolded, ODD),
    "unpool": (lambda: _pooled_back(2, 0, ceil=False), PICTURE),
    "unpool odd": (lambda: _pooled_back(2, 0, ceil=True), ODD),
    "unpool odd floor": (lambda: _pooled_back(2, 0, ceil=False), ODD),
    "unpool overlapping": (lambda: _pooled_back(3, 1, ceil=False), ODD),
    **{
        f"{mode} × {factor}": (
            lambda mode=mode, factor=factor: _resized(mode, factor),  # type: ignore[misc]
            (1, 3, 10, 14),
        )
        for mode in ("nearest", "nearest-exact", "bilinear", "bicubic")
        for factor in (2, 3, 1.5, 0.5)
    },
    "bilinear corners": (lambda: _resized("bilinear", 2, align_corners=True), (1, 3, 10, 14)),
    "bicubic corners": (lambda: _resized("bicubic", 3, align_corners=True), (1, 3, 10, 14)),
    "antialias": (lambda: _resized("bilinear", 0.5, antialias=True), (1, 3, 10, 14)),
    "norms": (_seq(_same(3), nn.GroupNorm(2, 4), _same(), nn.LocalResponseNorm(3)), PICTURE),
    "instance norm": (_seq(_same(3), nn.InstanceNorm2d(4), _same()), PICTURE),
    "layer norm": (_seq(_same(3), nn.LayerNorm([4, 23, 27]), _same()), ODD),
    "1D": (
        _seq(nn.Conv1d(2, 4, 5, 2, 2), nn.MaxPool1d(3, 2, 1), nn.Conv1d(4, 4, 3, dilation=2)),
        (1, 2, 61),
    ),
    "1D transposed": (
        _seq(nn.Conv1d(2, 4, 5, 2), nn.ConvTranspose1d(4, 4, 4, 2, 1), nn.AvgPool1d(3)),
        (1, 2, 61),
    ),
    "1D adaptive": (_seq(nn.Conv1d(2, 4, 3), nn.AdaptiveMaxPool1d(7)), (1, 2, 40)),
    "1D linear": (_seq(nn.Conv1d(2, 4, 3), nn.Upsample(scale_factor=3, mode="linear")), (1, 2, 20)),
    "3D": (
        _seq(nn.Conv3d(1, 4, 3, (1, 2, 2), 1), nn.MaxPool3d(2, ceil_mode=True), nn.Conv3d(4, 2, 2)),
        (1, 1, 9, 12, 13),
    ),
    "3D up": (
        _seq(nn.Conv3d(1, 2, 3, 2), nn.ConvTranspose3d(2, 2, 2, 2), nn.AvgPool3d(3, 1, 1)),
        (1, 1, 9, 11, 13),
    ),
    "3D trilinear": (
        _seq(nn.Conv3d(1, 2, 3, 2), nn.Upsample(scale_factor=2, mode="trilinear")),
        (1, 1, 9, 11, 13),
    ),
    "batch of two": (
        _seq(_conv(3, stride=2), nn.BatchNorm2d(4), nn.Hardswish(), _same()),
        (2, *ODD[1:]),
    ),
}
"""Name → how it is made, and the shape of its input."""
