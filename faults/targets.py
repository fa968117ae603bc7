"""What `faults.fuzz` feeds to which parser: good files, bombs, and one reading.

A target makes the files of one input from a generator of chance, and reads them as neocog reads
what users bring. Reading ends well or with `NeocogError`; anything else is a finding.
"""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import struct
import tarfile
import zipfile
import zlib
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from faults.mutate import checksummed_png, checksummed_tar, mutated

if TYPE_CHECKING:
    import random
    from collections.abc import Callable
    from pathlib import Path

    from numpy.typing import NDArray

__all__ = ["TARGETS", "Target"]

Files = dict[str, bytes]


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One parser."""

    make: Callable[[random.Random], Files]
    """Draws the files of an input, by name."""
    read: Callable[[Path], None]
    """Reads them in a folder."""
    bombs: Callable[[], list[Files]] = list
    """Inputs that cost more than they look; each is read as it is, before the drawn ones."""


def _seed(chance: random.Random) -> int:
    return chance.getrandbits(64)


# --- pictures ----------------------------------------------------------------------------------


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.copy().save(file, form, **options)  # saving may leave traces in an image
    return file.getvalue()


def _pixels(*shape: int) -> NDArray[np.uint8]:
    """A slope with some noise: neither flat nor incompressible."""
    noise = np.random.default_rng(0).integers(0, 32, shape)
    ramp = np.arange(shape[1]).reshape(1, -1, *[1] * (len(shape) - 2)) * 5
    return ((ramp + noise) % 256).astype(np.uint8)


@cache
def _pictures() -> tuple[bytes, ...]:
    """One small good file of each sort that Pillow can write."""
    color, grey = Image.fromarray(_pixels(24, 40, 3)), Image.fromarray(_pixels(24, 40))
    palette = color.quantize(16)
    clear = Image.fromarray(_pixels(24, 40, 4), "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010E] = "words"

    def frames() -> dict[str, Any]:
        return {"save_all": True, "append_images": [grey.convert("RGB") for _ in range(2)]}

    made = [
        _encoded(color, "JPEG", exif=exif, icc_profile=bytes(200)),
        _encoded(color, "JPEG", progressive=True, comment=b"x"),
        _encoded(color.convert("CMYK"), "JPEG", restart_marker_blocks=1),
        *(_encoded(image, "JPEG", quality=50) for image in (grey, color)),
        _encoded(color, "MPO", **frames()),
        *(_encoded(image, "PNG") for image in (grey, color, clear, clear.convert("LA"))),
        _encoded(palette, "PNG", transparency=bytes(16), exif=exif),
        _encoded(grey.convert("1"), "PNG", icc_profile=bytes(200)),
        _encoded(color, "PNG", **frames()),
        _encoded(Image.fromarray(_pixels(24, 40).astype(np.uint16)), "PNG"),
        _encoded(palette, "GIF", save_all=True, append_images=[palette.rotate(90)] * 2, loop=0),
        *(_encoded(image, "BMP") for image in (color, grey, palette, clear)),
        *(
            _encoded(color, "TIFF", compression=name, exif=exif)
            for name in ("raw", "tiff_lzw", "tiff_adobe_deflate", "jpeg", "packbits")
        ),
        _encoded(grey.convert("1"), "TIFF", compression="group4"),
        _encoded(clear, "TIFF", tiffinfo={317: 2}, compression="tiff_lzw"),
        _encoded(color, "TIFF", big_tiff=True, **frames()),
        _encoded(color, "WEBP", quality=50, exif=exif),
        _encoded(clear, "WEBP", lossless=True),
        _encoded(color, "WEBP", **frames()),
        *(_encoded(image, "PPM") for image in (color, grey, grey.convert("1"))),
        b"P3 4 2 255\n" + b"1 2 3 " * 8,
        b"P1 4 2\n0 1 0 1 1 0 1 0",
    ]
    return tuple(made)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def _png(width: int, height: int, kind: int, *chunks: bytes) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, 8, kind, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + b"".join(chunks) + _chunk(b"IEND", b"")


def _picture_bombs() -> list[Files]:
    zeros = zlib.compress(bytes(64 << 20), 9)
    small = _chunk(b"IDAT", zlib.compress(bytes(100), 9))
    side = 4600  # just inside the budget as RGB
    exif = Image.Exif()
    exif[0x0112] = 6
    flat = Image.new("RGB", (side, side), (9, 8, 7))
    grey = Image.new("L", (8000, 8000))
    palette = flat.quantize(4)
    bombs = [
        _png(65535, 65535, 2, _chunk(b"IDAT", b"")),
        _png(4, 4, 2, _chunk(b"zTXt", b"note\0\0" + zeros), small),
        _png(4, 4, 2, _chunk(b"iCCP", b"note\0\0" + zeros), small),
        _png(4, 4, 2, _chunk(b"iTXt", b"note\0\1\0\0\0" + zeros), small),
        _png(4, 4, 2, *[_chunk(b"zTXt", b"n\0\0" + zlib.compress(bytes(900_000)))] * 200, small),
        _png(4, 4, 2, _chunk(b"IDAT", zeros)),
        _png(4, 4, 2, *[_chunk(b"tEXt", b"n\0x")] * 300_000, small),
        _encoded(flat, "PNG"),
        _encoded(flat, "PNG", exif=exif),
        _encoded(flat.convert("RGBA").resize((4000, 4000)), "PNG"),
        _encoded(palette, "PNG", transparency=bytes(4)),
        _encoded(palette, "PNG", transparency=bytes(4), exif=exif),
        _encoded(grey, "PNG"),
        _encoded(grey.convert("1"), "PNG"),
        _encoded(Image.new("RGB", (7000, 7000)), "PNG"),
        *(_encoded(flat, "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate")),
        _encoded(flat, "TIFF", compression="tiff_adobe_deflate", exif=exif),
        _encoded(grey.convert("1"), "TIFF", compression="group4"),
        _encoded(flat, "WEBP", lossless=True, method=0),
        _encoded(flat.convert("RGBA").resize((4000, 4000)), "WEBP", lossless=True, method=0),
        _encoded(palette, "GIF", save_all=True, append_images=[palette] * 3),
        _encoded(flat, "JPEG"),
        _encoded(flat, "JPEG", exif=exif),
        _encoded(Image.new("RGB", (9000, 9000)), "JPEG"),
        _encoded(Image.new("RGB", (9000, 9000)), "JPEG", progressive=True),
        _encoded(flat, "JPEG", progressive=True),
        _encoded(flat, "JPEG", progressive=True, subsampling=0),
        _encoded(Image.new("LA", (5700, 5700)), "PNG"),
        _encoded(flat, "BMP"),
        _encoded(flat.convert("CMYK").resize((4000, 4000)), "JPEG"),
        # Strips grow when their short side is brought to a network's size.
        *(_encoded(Image.new(mode, (40, 25_600)), "PNG") for mode in ("L", "RGB", "RGBA")),
        _encoded(Image.new("RGB", (54_800, 26)), "JPEG", progressive=True),
        _encoded(Image.new("RGB", (26, 54_800)), "GIF"),
        b"P6 65535 65535 255\n",
        b"P3 4000 4000 255\n" + b"1 " * 1000,
        b"BM" + struct.pack("<IIIIiiHHII", 54, 0, 54, 40, 60000, -60000, 1, 24, 0, 0) + bytes(24),
    ]
    return [{"x": bomb} for bomb in bombs]


def _make_picture(chance: random.Random) -> Files:
    data = mutated(chance.choice(_pictures()), _seed(chance), _pictures())
    if data.startswith(b"\x89PNG") and chance.random() < 0.7:
        data = checksummed_png(data)
    return {"x": data}


def _read_picture(folder: Path) -> None:
    from neocog.data.decode import SMALL, picture, read_file

    data = read_file(folder / "x")
    found = picture(data, name="x", cover=(SMALL, SMALL), whole=SMALL)
    assert len(found.pixels) == found.size[0] * found.size[1] * found.channels


def _read_mask(folder: Path) -> None:
    from neocog.data.decode import read_file
    from neocog.data.masks import Values, mask

    data = read_file(folder / "x")
    found = mask(data, name="x", values=Values(classes=200, ignore=3))
    assert len(found.pixels) == found.size[0] * found.size[1]
    assert 3 not in found.pixels


# --- data sets ---------------------------------------------------------------------------------


def _read_set(folder: Path) -> None:
    from neocog.data.sources import read, signature

    signature(str(folder))
    source = read(str(folder))
    for part in source.parts:
        assert len(part.names) == len(part.targets) == len(part.splits)
        assert part.pixels is None or len(part.pixels) == len(part.names)


def _read_only(folder: Path) -> None:
    """A data set that is one file, named itself."""
    from neocog.data.sources import read, signature

    (path,) = folder.glob("set.*")
    signature(str(path))
    read(str(path))


def _idx(array: NDArray[np.uint8]) -> bytes:
    return (
        bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + bytes(array)
    )


LABELS = np.array([0, 1, 2, 1, 0, 2], np.uint8)
_IDX = {"images-idx3": _idx(_pixels(6, 5, 4)), "labels-idx1": _idx(LABELS)}


def _make_idx(chance: random.Random) -> Files:
    bad, packed = chance.choice(tuple(_IDX)), chance.random() < 0.4
    files = {}
    for name, data in _IDX.items():
        if name == bad and (not packed or chance.random() < 0.5):
            data = mutated(data, _seed(chance), tuple(_IDX.values()))
        elif name == bad:
            files[f"train-{name}-ubyte.gz"] = mutated(gzip.compress(data, mtime=0), _seed(chance))
            continue
        ending = ".gz" if packed else ""
        files[f"train-{name}-ubyte{ending}"] = gzip.compress(data, mtime=0) if packed else data
    return files


def _idx_bombs() -> list[Files]:
    huge = bytes([0, 0, 8, 3]) + struct.pack(">3I", 2**31, 65535, 65535)
    many = bytes([0, 0, 8, 3]) + struct.pack(">3I", 60000, 100, 100)
    labels = {"train-labels-idx1-ubyte.gz": gzip.compress(_IDX["labels-idx1"], mtime=0)}
    name = "train-images-idx3-ubyte.gz"
    return [
        {name: gzip.compress(data, 9, mtime=0), **labels}
        for data in (huge, many, _IDX["images-idx3"] + bytes(256 << 20), many + bytes(200 << 20))
    ]


_NAMES = b"airplane\nautomobile\nbird\ncat\ndeer\ndog\nfrog\nhorse\nship\ntruck\n"


@cache
def _records(coarse: bool) -> bytes:
    rows = _pixels(12, 3073 + coarse)
    rows[:, : 1 + coarse] = np.arange(12)[:, None] % 10
    return bytes(rows)


def _make_cifar(chance: random.Random) -> Files:
    coarse = chance.random() < 0.5
    data, names = _records(coarse), _NAMES
    if chance.random() < 0.7:
        data = mutated(data, _seed(chance))
        if chance.random() < 0.5:  # or hardly any would have whole records
            data = data[: len(data) // (3073 + coarse) * (3073 + coarse)]
    else:
        names = mutated(names, _seed(chance))
    if coarse:
        return {"train.bin": data, "fine_label_names.txt": names}
    return {"data_batch_1.bin": data, "batches.meta.txt": names}


def _npy(array: NDArray[Any]) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


_X, _Y = _npy(_pixels(6, 5, 4)), _npy(LABELS.astype(np.int64))


def _zip(files: Files, method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in files.items():
            archive.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def _make_npz(chance: random.Random) -> Files:
    method = chance.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA))
    return {"set.npz": mutated(_zip({"x.npy": _X, "y.npy": _Y}, method), _seed(chance))}


def _make_npy(chance: random.Random) -> Files:
    arrays = {"x.npy": _X, "y.npy": _Y}
    bad = chance.choice(tuple(arrays))
    arrays[bad] = mutated(arrays[bad], _seed(chance), (_X, _Y))
    return {"set.npz": _zip(arrays)}


def _header(text: str) -> bytes:
    return b"\x93NUMPY\x03\0" + struct.pack("<I", len(text)) + text.encode()


def _npz_bombs() -> list[Files]:
    packed = zipfile.ZIP_DEFLATED
    shape = "{'descr': '|u1', 'fortran_order': False, 'shape': %s}"
    headers = [
        *(shape % shape_ for shape_ in ("(2**40,)", f"({2**40},)", f"({'1,' * 3000})")),
        *("[" * 5000, "{" * 5000, "9" * 60000, "(" * 60000, "-" * 60000),
        shape % "(60000,1000)",
    ]
    return [
        *({"set.npz": _zip({"x.npy": _header(text), "y.npy": _Y})} for text in headers),
        {
            "set.npz": _zip(
                {"x.npy": _npy(np.zeros((2000, 300, 300), np.uint8)), "y.npy": _Y}, packed
            )
        },
        {
            "set.npz": _zip(
                {"x.npy": _npy(np.zeros((4, 9000, 3000), np.uint8)), "y.npy": _Y}, packed
            )
        },
        {"set.npz": _zip({"x.npy": _X, "y.npy": _Y, **{f"z{i}": b"" for i in range(1000)}})},
    ]


_TABLE = b'path,label,split,weight\na.png,x,train,1\nb.png,"y",train,2\nc.png,x,val,0\n'
_VALUES = b"file;value_x;value_y\na.png;1.5;2\nb.png;-3e2;0\n".replace(b";", b",")
_LABELS = b"path,labels\na.png,cat|dog\nb.png,\nc.png,cat\n"


def _make_table(chance: random.Random) -> Files:
    tables = (_TABLE, _VALUES, _LABELS)
    pictures = {f"{name}.png": b"" for name in "abc"}
    return {"set.csv": mutated(chance.choice(tables), _seed(chance), tables), **pictures}


def _table_bombs() -> list[Files]:
    many = b"path,label\n" + b"".join(b"a.png,c%d\n" % i for i in range(1000))
    texts = (
        b"path,label\n" + b"a" * (4 << 20),
        b'path,label\n"' + b"a\n" * 100_000,
        b"path,label\n" + b"," * (4 << 20) + b"\n",
        b"path,label" + b",x" * 100_000 + b"\na.png,b\n",
        many,
        _LABELS + b"a.png," + b"x|" * 100_000 + b"\n",
        b"path,label\na.png," + b"9" * 100_000 + b"\nb.png,1\n",
    )
    return [{"set.csv": text} for text in texts]


# --- archives ----------------------------------------------------------------------------------


@cache
def _members() -> Files:
    picture = _pictures()[6]
    return {f"set/{name}/{i}.png": picture for name in "ab" for i in range(2)}


def _tar(files: Files, form: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            if form == tarfile.PAX_FORMAT:
                info.pax_headers = {"comment": "words"}
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


_PACKERS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "tar.gz": lambda data: gzip.compress(data, mtime=0),
    "tar.bz2": bz2.compress,
    "tar.xz": lzma.compress,
}


def _make_tar(chance: random.Random) -> Files:
    forms = (tarfile.PAX_FORMAT, tarfile.GNU_FORMAT, tarfile.USTAR_FORMAT)
    data = _tar(_members() | {"set/b/" + "n" * 120: b""}, chance.choice(forms[:2]))
    ending = chance.choice(("tar", "tar", *_PACKERS))
    if ending == "tar" or chance.random() < 0.5:
        data = mutated(data, _seed(chance))
        data = checksummed_tar(data) if chance.random() < 0.7 else data
        return {f"set.{ending}": _PACKERS[ending](data)}
    return {f"set.{ending}": mutated(_PACKERS[ending](data), _seed(chance))}


def _tar_bombs() -> list[Files]:
    zeros = _tar({"set/a/1.png": bytes(300 << 20)})
    sparse = tarfile.TarInfo("set/a/1.png")
    sparse.size = 2**40
    endless = tarfile.TarInfo("set/a/1.png")
    endless.size = 2**33
    return [
        *({f"set.{name}": pack(zeros)} for name, pack in _PACKERS.items() if name == "tar.gz"),
        {"set.tar.gz": gzip.compress(bytes(300 << 20), mtime=0)},
        {"set.tar": sparse.tobuf()},
        {"set.tar.gz": gzip.compress(endless.tobuf() + bytes(1 << 20), mtime=0)},
        {"set.tar.gz": gzip.compress(_tar({f"set/a/{i}": b"" for i in range(1000)}), mtime=0)},
    ]


def _make_zip(chance: random.Random) -> Files:
    methods = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)
    return {"set.zip": mutated(_zip(_members(), chance.choice(methods)), _seed(chance))}


def _zip_bombs() -> list[Files]:
    zeros = _zip({"set/a/1.png": bytes(300 << 20)}, zipfile.ZIP_DEFLATED)
    # The same with a directory that promises 1000 bytes.
    liar = zeros.replace(struct.pack("<I", 300 << 20), struct.pack("<I", 1000))
    return [
        {"set.zip": zeros},
        {"set.zip": liar},
        {"set.zip": _zip({f"set/a/{i}": b"" for i in range(1000)})},
    ]


# --- what neocog writes itself -----------------------------------------------------------------


@cache
def _tensors() -> bytes:
    import torch
    from safetensors.torch import save

    data: bytes = save({"a.weight": torch.ones(3, 4), "b": torch.arange(5)}, {"note": "x"})
    return data


def _make_tensors(chance: random.Random) -> Files:
    return {"w.safetensors": mutated(_tensors(), _seed(chance))}


def _safetensors(header: bytes, rest: bytes = b"") -> bytes:
    return struct.pack("<Q", len(header)) + header + rest


def _tensor_bombs() -> list[Files]:
    entry = b'{"a":{"dtype":"F32","shape":[%s],"data_offsets":[0,%s]}}'
    headers = (
        b"[" * 100_000,
        b'{"a":' * 100_000,
        entry % (b"1099511627776", b"4398046511104"),
        entry % (b"0," * 1_000_000 + b"0", b"0"),
        b'{"__metadata__":{"a":"' + b"x" * (50 << 20) + b'"}}',
    )
    files = [*map(_safetensors, headers), struct.pack("<Q", 2**63) + b"{}", bytes(8)]
    return [{"w.safetensors": data} for data in files]


def _read_tensors(folder: Path) -> None:
    from neocog import weights
    from neocog.engine import checkpoint
    from neocog.errors import NeocogError

    weights.read(folder / "w.safetensors")  # as strangers' files are; ours may have longer headers
    try:
        checkpoint.load_weights(folder / "w.safetensors")
    except NeocogError:
        checkpoint.load(folder / "w.safetensors")


@cache
def _state() -> tuple[str, dict[str, Any]]:
    """Description and tensors of a small checkpoint."""
    from pathlib import Path
    from tempfile import TemporaryDirectory

    import torch

    from neocog import weights
    from neocog.engine import checkpoint
    from neocog.records import TrainState

    ones = {"w": torch.ones(2, 3), "b": torch.zeros(2)}
    state = TrainState(
        step=7,
        model=ones,
        optimizer={"state": {0: {"step": 7, "momentum": torch.ones(2)}}, "groups": [(0.9, 1e-3)]},
        schedule={"lowered": [1.0, float("inf")]},
        ema={"w": torch.ones(2, 3)},
    )
    with TemporaryDirectory() as folder:
        path = checkpoint.save(Path(folder), state, meta={"order": [1, None, True, "x"]})
        found = weights.contents(path)
    return found.metadata["neocog"], dict(found.tensors)


def _forged(text: str) -> Files:
    """A checkpoint with this description and the digest that belongs to it."""
    from safetensors.torch import save

    from neocog.engine import checkpoint

    tensors = _state()[1]
    digest = checkpoint.digest_of(text, tensors)
    return {"step-00000007.safetensors": save(tensors, {"neocog": text, "sha256": digest})}


_ODD: tuple[Any, ...] = (
    None,
    True,
    -1,
    0.5,
    10**30,
    "",
    "w",
    [],
    [[]],
    {},
    {"tensor": "w"},
    {"dict": [[[], 1]]},
)


def _exchanged(tree: Any, chance: random.Random) -> Any:
    """A JSON tree with one of its values replaced by an odd one."""
    if not isinstance(tree, list | dict) or not tree or chance.random() < 0.2:
        return chance.choice(_ODD)
    changed: Any = tree.copy()
    place = chance.choice(list(tree) if isinstance(tree, dict) else range(len(tree)))
    changed[place] = _exchanged(tree[place], chance)
    return changed


def _make_checkpoint(chance: random.Random) -> Files:
    text = _state()[0]
    if chance.random() < 0.3:
        return _forged(mutated(text.encode(), _seed(chance)).decode(errors="replace"))
    tree = json.loads(text)
    for _ in range(chance.randint(1, 3)):
        tree = _exchanged(tree, chance)
    return _forged(json.dumps(tree))


def _checkpoint_bombs() -> list[Files]:
    deep = '{"tuple": [' * 900 + "]}" * 900
    parts = '{"format": 1, "step": 7, "model": %s, "ema": %s, "optimizer": 1}'
    texts = (
        *("[" * 100_000, '{"format":' * 100_000, deep, "9" * 100_000),
        *(parts % (deep, deep), parts % ("[" * 50_000 + "]" * 50_000, 1)),
    )
    return [_forged(text) for text in texts]


def _read_checkpoint(folder: Path) -> None:
    from neocog.engine import checkpoint

    (path,) = folder.iterdir()
    checkpoint.load(path)


@cache
def _bundle() -> Files:
    from pathlib import Path
    from tempfile import TemporaryDirectory

    from neocog.bundle import Bundle
    from neocog.config import Recipe
    from neocog.models import catalog
    from neocog.records import InputSpec, Manifest, ModelSpec, TaskSpec
    from neocog.settings import to_dict

    args = {"width": 4}
    network = catalog.build("cnn", channels=1, size=(8, 8), outputs=2, args=args)
    bundle = Bundle(
        model=ModelSpec(name="cnn", args=args),
        weights=network.state_dict(),
        input=InputSpec(channels=1, size=(8, 8), mean=(0.5,), std=(0.5,)),
        task=TaskSpec(name="classify", args={"classes": ["a", "b"]}),
        classes=("a", "b"),
        manifest=Manifest(
            config=to_dict(Recipe()), seed=0, versions={}, argv=(), device={}, data={}
        ),
    )
    with TemporaryDirectory() as folder:
        bundle.save(Path(folder))
        return {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}


def _make_bundle(chance: random.Random) -> Files:
    files = dict(_bundle())
    bad = "bundle.json" if chance.random() < 0.8 else "weights.safetensors"
    return files | {bad: mutated(files[bad], _seed(chance))}


def _read_bundle(folder: Path) -> None:
    from neocog.bundle import Bundle

    Bundle.load(folder)


@cache
def _configs() -> Files:
    from neocog.config import Recipe
    from neocog.settings import to_dict

    plain = to_dict(Recipe())
    lines = [f"{name} = {json.dumps(v)}" for name, v in plain.items() if isinstance(v, str | int)]
    for name, values in plain.items():
        if isinstance(values, dict):
            lines.append(f"[{name}]")
            lines += [f"{k} = {json.dumps(v)}" for k, v in values.items() if v is not None]
    return {
        "recipe.toml": "\n".join(lines).encode(),
        "manifest.json": json.dumps({"config": plain}).encode(),
    }


def _make_config(chance: random.Random) -> Files:
    name = chance.choice(tuple(_configs()))
    return {name: mutated(_configs()[name], _seed(chance))}


def _config_bombs() -> list[Files]:
    texts = (
        b"[" * 100_000,
        b"a=" + b"[" * 100_000,
        b"a" + b".a" * 50_000 + b"=1",
        b"a=" + b"9" * 50_000,
    )
    nested = (b"[" * 100_000, b'{"config":' * 50_000, b'{"config":{"seed":' + b"9" * 50_000 + b"}}")
    return [
        *({"recipe.toml": text} for text in texts),
        *({"manifest.json": text} for text in nested),
    ]


def _read_config(folder: Path) -> None:
    from neocog.config import Recipe
    from neocog.settings import from_dict, load_file

    (path,) = folder.iterdir()
    from_dict(Recipe, load_file(path))


_EVENTS = b"".join(
    b'{"step": %d, "kind": "epoch", "values": {"loss": 0.%d}, "time": %d.25}\n' % (i, i, i)
    for i in range(1, 20)
)


def _make_events(chance: random.Random) -> Files:
    return {"events.jsonl": mutated(_EVENTS, _seed(chance))}


def _event_bombs() -> list[Files]:
    texts = (
        b"[" * 100_000 + b"\n",
        b'{"step":' * 50_000 + b"\n",
        b'{"step":' + b"9" * 50_000 + b"}\n",
    )
    return [{"events.jsonl": text + _EVENTS} for text in texts]


def _read_events(folder: Path) -> None:
    from neocog.run import read_events

    read_events(folder / "events.jsonl")


TARGETS = {
    "images": Target(make=_make_picture, read=_read_picture, bombs=_picture_bombs),
    "masks": Target(make=_make_picture, read=_read_mask, bombs=_picture_bombs),
    "idx": Target(make=_make_idx, read=_read_set, bombs=_idx_bombs),
    "cifar": Target(make=_make_cifar, read=_read_set),
    "npz": Target(make=_make_npz, read=_read_only, bombs=_npz_bombs),
    "npy": Target(make=_make_npy, read=_read_only),
    "csv": Target(make=_make_table, read=_read_only, bombs=_table_bombs),
    "zip": Target(make=_make_zip, read=_read_only, bombs=_zip_bombs),
    "tar": Target(make=_make_tar, read=_read_only, bombs=_tar_bombs),
    "safetensors": Target(make=_make_tensors, read=_read_tensors, bombs=_tensor_bombs),
    "checkpoint": Target(make=_make_checkpoint, read=_read_checkpoint, bombs=_checkpoint_bombs),
    "bundle": Target(make=_make_bundle, read=_read_bundle),
    "config": Target(make=_make_config, read=_read_config, bombs=_config_bombs),
    "events": Target(make=_make_events, read=_read_events, bombs=_event_bombs),
}
"""Every parser that reads what users bring."""
