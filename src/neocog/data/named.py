"""Data sets that have a name. Floor 1, room data; imports floor 0, this room, NumPy.

A literal table: where the published files are and what they must hash to. They live in
`cache_dir()/sets/NAME/`; whoever puts them there by hand needs no network. `digits` comes with
scikit-learn and needs no file.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from neocog.data.archive import unpack
from neocog.data.cache import cache_dir
from neocog.data.cifar import read_cifar
from neocog.data.fetch import fetch
from neocog.data.idx import read_idx
from neocog.data.opened import open_regular, sha256_of
from neocog.data.samples import Part, Source
from neocog.errors import DataError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["NAMES", "SETS", "NamedFile", "NamedSet", "named_signature", "read_named"]


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedFile:
    """One published file."""

    name: str
    """In the set's folder."""
    url: str
    """Where it is fetched from."""
    sha256: str
    """Of the file as published."""
    unpacked: str = ""
    """SHA-256 of what is in the gzip file. Where it is known any gzip file of the same content
    serves: copies that were compressed again are common."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NamedSet:
    """One data set."""

    kind: Literal["idx", "cifar"]
    """Which reader reads it."""
    files: tuple[NamedFile, ...]
    """All of it."""
    classes: tuple[str, ...] = ()
    """Class names by index, where the files do not hold them."""
    folder: str = ""
    """Folder inside the archive."""


_MNIST = "https://storage.googleapis.com/cvdf-datasets/mnist/"
_FASHION = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/"
_KMNIST = "http://codh.rois.ac.jp/kmnist/dataset/kmnist/"
_CIFAR = "https://www.cs.toronto.edu/~kriz/"

# fmt: off
SETS: dict[str, NamedSet] = {
    # Y. LeCun, C. Cortes, C. J. C. Burges.
    "mnist": NamedSet(
        kind="idx",
        classes=tuple("0123456789"),
        files=(
            NamedFile(
                name="train-images-idx3-ubyte.gz", url=_MNIST + "train-images-idx3-ubyte.gz",
                sha256="440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
                unpacked="ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            ),
            NamedFile(
                name="train-labels-idx1-ubyte.gz", url=_MNIST + "train-labels-idx1-ubyte.gz",
                sha256="3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
                unpacked="65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            ),
            NamedFile(
                name="t10k-images-idx3-ubyte.gz", url=_MNIST + "t10k-images-idx3-ubyte.gz",
                sha256="8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
                unpacked="0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            ),
            NamedFile(
                name="t10k-labels-idx1-ubyte.gz", url=_MNIST + "t10k-labels-idx1-ubyte.gz",
                sha256="f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
                unpacked="ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
            ),
        ),
    ),
    # H. Xiao, K. Rasul, R. Vollgraf, arXiv 1708.07747.
    "fashion-mnist": NamedSet(
        kind="idx",
        classes=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        files=(
            NamedFile(
                name="train-images-idx3-ubyte.gz", url=_FASHION + "train-images-idx3-ubyte.gz",
                sha256="3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84",
            ),
            NamedFile(
                name="train-labels-idx1-ubyte.gz", url=_FASHION + "train-labels-idx1-ubyte.gz",
                sha256="a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
            ),
            NamedFile(
                name="t10k-images-idx3-ubyte.gz", url=_FASHION + "t10k-images-idx3-ubyte.gz",
                sha256="346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073",
            ),
            NamedFile(
                name="t10k-labels-idx1-ubyte.gz", url=_FASHION + "t10k-labels-idx1-ubyte.gz",
                sha256="67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5",
            ),
        ),
    ),
    # T. Clanuwat et al., arXiv 1812.01718.
    "kmnist": NamedSet(
        kind="idx",
        classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        files=(
            NamedFile(
                name="train-images-idx3-ubyte.gz", url=_KMNIST + "train-images-idx3-ubyte.gz",
                sha256="51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4",
            ),
            NamedFile(
                name="train-labels-idx1-ubyte.gz", url=_KMNIST + "train-labels-idx1-ubyte.gz",
                sha256="e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
            ),
            NamedFile(
                name="t10k-images-idx3-ubyte.gz", url=_KMNIST + "t10k-images-idx3-ubyte.gz",
                sha256="edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5",
            ),
            NamedFile(
                name="t10k-labels-idx1-ubyte.gz", url=_KMNIST + "t10k-labels-idx1-ubyte.gz",
                sha256="20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c",
            ),
        ),
    ),
    # A. Krizhevsky, 2009. The binary editions: the Python ones are pickles.
    "cifar10": NamedSet(
        kind="cifar",
        folder="cifar-10-batches-bin",
        files=(
            NamedFile(
                name="cifar-10-binary.tar.gz", url=_CIFAR + "cifar-10-binary.tar.gz",
                sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
            ),
        ),
    ),
    "cifar100": NamedSet(
        kind="cifar",
        folder="cifar-100-binary",
        files=(
            NamedFile(
                name="cifar-100-binary.tar.gz", url=_CIFAR + "cifar-100-binary.tar.gz",
                sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
            ),
        ),
    ),
}
# fmt: on

NAMES = ("digits", *SETS)
"""Every name that `read` knows."""


def read_named(name: str, progress: Callable[[int, int], None] | None = None) -> Source:
    """The data set of that name, fetched first if it is not in the cache.

    Raises:
        DataError: it cannot be fetched (the hint says which file to put where), or a file in the
            cache is another than the published one.
    """
    if name == "digits":
        return _digits()
    home = cache_dir() / "sets" / name
    described = SETS[name]
    for file in described.files:
        if not _accepted(home / file.name, file):
            fetch(file.url, home / file.name, file.sha256, progress=progress)
    if described.kind == "idx":
        return read_idx(home, described.files[0].name, described.classes)
    return read_cifar(unpack(home / described.files[0].name) / described.folder)


def named_signature(name: str) -> bytes:
    """What decides the content of a named set: its checksums, or scikit-learn's version.

    The files themselves are not looked at: `read_named` takes no others, so that the signature is
    the same before and after the download.
    """
    if name == "digits":
        return f"digits 1, scikit-learn {importlib.metadata.version('scikit-learn')}".encode()
    return " ".join((name, *(file.sha256 for file in SETS[name].files))).encode()


def _accepted(path: Path, file: NamedFile) -> bool:
    """Whether the file is there with the published content."""
    if not path.exists():
        return False
    if sha256_of(path) == file.sha256:
        return True
    return bool(file.unpacked) and _unpacked_sha256(path) == file.unpacked


def _unpacked_sha256(path: Path) -> str:
    """SHA-256 of what is in a gzip file; empty where that cannot be told."""
    try:
        with open_regular(path) as packed, gzip.GzipFile(fileobj=packed) as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except (DataError, EOFError, OSError, zlib.error):
        return ""


def _digits() -> Source:
    """scikit-learn's 1,797 digits, 8×8, brightness 0…16 stretched to 0…255."""
    # scikit-learn takes half a second to import: only who wants digits waits.
    from sklearn.datasets import load_digits

    found = load_digits()
    pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)[..., np.newaxis]
    n = len(pixels)
    part = Part(
        names=tuple(f"digits[{i}]" for i in range(n)),
        splits=("",) * n,
        targets=tuple(str(label) for label in found.target.tolist()),
        pixels=pixels,
    )
    return Source(kind="digits", target="class", classes=tuple("0123456789"), parts=(part,))
