"""IDX and CIFAR files: what is read, and what damage gets beyond the battery of bad inputs."""

from __future__ import annotations

import gzip
import struct
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damage import FUZZ, mutated, refused
from neocog.data.sources import read
from neocog.errors import NeocogError

RNG = np.random.default_rng(0)


# --- IDX ---------------------------------------------------------------------------------------


def idx(array, kind=8):
    array = np.asarray(array, np.uint8)
    head = bytes([0, 0, kind, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape)
    return head + array.tobytes()


IMAGES = RNG.integers(0, 256, (6, 3, 4), np.uint8)
LABELS = np.array([0, 1, 2, 1, 0, 2], np.uint8)


def idx_set(folder, train=(IMAGES, LABELS), test=None, images=None, labels=None, ending=""):
    pack = gzip.compress if ending else bytes
    for split, pair in (("train", train), ("t10k", test)):
        if pair is not None:
            (folder / f"{split}-images-idx3-ubyte{ending}").write_bytes(pack(idx(pair[0])))
            (folder / f"{split}-labels-idx1-ubyte{ending}").write_bytes(pack(idx(pair[1])))
    if images is not None:
        (folder / f"train-images-idx3-ubyte{ending}").write_bytes(images)
    if labels is not None:
        (folder / f"train-labels-idx1-ubyte{ending}").write_bytes(labels)
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize("one_file", [False, True])
def test_idx(tmp_path, ending, one_file):
    idx_set(tmp_path, test=(IMAGES[:2], LABELS[:2]), ending=ending)
    name = f"t10k-labels-idx1-ubyte{ending}" if one_file else ""
    source = read(str(tmp_path / name))
    train, test = source.parts
    assert (source.kind, source.classes) == ("idx", ("0", "1", "2"))
    assert (train.pixels[..., 0] == IMAGES).all()
    assert train.targets == tuple(map(str, LABELS))
    assert (train.names[5], train.splits[5]) == ("train[5]", "train")
    assert (test.pixels[..., 0] == IMAGES[:2]).all()
    assert test.splits == ("test", "test")
    assert [(f.path, f.code) for f in source.faults] == [("test", "missing-class")]


def test_idx_in_colour_under_dotted_names_beside_gzipped_copies(tmp_path):
    colour = RNG.integers(0, 256, (6, 3, 4, 3), np.uint8)
    (tmp_path / "train-images.idx4-ubyte").write_bytes(idx(colour))
    (tmp_path / "train-images.idx4-ubyte.gz").write_bytes(b"not looked at")
    (tmp_path / "train-labels.idx1-ubyte").write_bytes(idx(LABELS))
    assert (read(str(tmp_path)).parts[0].pixels == colour).all()


def test_idx_several_sets_in_one_folder(tmp_path):
    for name in ("emnist-a-", "emnist-b-"):
        (tmp_path / f"{name}train-images-idx3-ubyte").write_bytes(idx(IMAGES))
        (tmp_path / f"{name}train-labels-idx1-ubyte").write_bytes(idx(LABELS))
    refused(tmp_path, "one IDX data set", "emnist-a-", "emnist-b-")
    assert len(read(str(tmp_path / "emnist-b-train-images-idx3-ubyte")).parts) == 1


GOOD = idx(IMAGES)


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (b"\0\0", ["field magic"]),
        (idx(IMAGES, 0x77), ["field type", "unknown"]),
        (idx(IMAGES[0]), ["field rank", "3 or 4", "found 2"]),
        (idx(IMAGES[..., None, None]), ["field rank", "found 5"]),
        (idx(np.zeros((6, 3, 4, 2))), ["field channels", "found 2"]),
        (GOOD[:4] + b"\xff" * 12 + GOOD[16:], ["field dimensions", "can hold 88"]),
        (GOOD[:-1], ["field dimensions", "88", "87"]),
        (idx(LABELS), ["field rank", "found 1"]),
    ],
)
def test_idx_damage(tmp_path, images, words):
    refused(idx_set(tmp_path, images=images), "train", *words)


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (idx(LABELS * 0), ["two classes"]),
        (idx(LABELS.reshape(3, 2)), ["field rank", "expected 1"]),
    ],
)
def test_idx_bad_labels(tmp_path, labels, words):
    refused(idx_set(tmp_path, labels=labels), *words)


def test_idx_missing_partner(tmp_path):
    (idx_set(tmp_path) / "train-labels-idx1-ubyte").unlink()
    refused(tmp_path, "found no labels", "train-images-idx3-ubyte")


@pytest.mark.parametrize(
    ("images", "words"),
    [
        (gzip.compress(GOOD)[:-1] + b"\x55", ["damaged"]),
        (gzip.compress(GOOD)[:10] + b"\xff" * 20, ["damaged"]),
        (gzip.compress(GOOD[:4] + struct.pack(">3I", 60000, 28, 28)), ["at most"]),
    ],
    ids=["checksum", "stream", "promise"],
)
def test_idx_gzip_damage(tmp_path, images, words):
    refused(idx_set(tmp_path, images=images, ending=".gz"), "train", *words)


def test_idx_gzip_bomb_is_not_unpacked(tmp_path, monkeypatch):
    """64 MiB of zeros behind an honest header: one byte more than promised is read."""
    read_bytes = []
    original = gzip.GzipFile.read

    def counted(self, size=-1):
        block = original(self, size)
        read_bytes.append(len(block))
        return block

    bomb = gzip.compress(GOOD + bytes(64 << 20), 9)
    idx_set(tmp_path, images=bomb, ending=".gz")
    monkeypatch.setattr(gzip.GzipFile, "read", counted)
    refused(tmp_path, "expected the file to end")
    assert sum(read_bytes) < 1000


@FUZZ
@given(seed=st.integers(0, 2**32), packed=st.booleans(), which=st.booleans())
def test_idx_fuzz(tmp_path, seed, packed, which):
    ending = ".gz" if packed else ""
    plain = idx(IMAGES) if which else idx(LABELS)
    content = gzip.compress(mutated(plain, seed)) if seed % 2 else gzip.compress(plain)
    data = (content if seed % 2 else mutated(content, seed)) if packed else mutated(plain, seed)
    idx_set(tmp_path, ending=ending, **{"images" if which else "labels": data})
    try:
        part = read(str(tmp_path)).parts[0]
    except NeocogError:
        return
    assert part.pixels.shape[0] == len(part.targets)


@FUZZ
@given(data=st.binary(max_size=200))
def test_idx_random_bytes(tmp_path, data):
    try:
        read(str(idx_set(tmp_path, images=b"\0\0\x08\x03" + data)))
    except NeocogError:
        return


# --- CIFAR -------------------------------------------------------------------------------------

NAMES10 = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def records(labels, coarse=None):
    pixels = RNG.integers(0, 256, (len(labels), 3072), np.uint8)
    columns = [] if coarse is None else [np.asarray(coarse, np.uint8)[:, None]]
    columns += [np.asarray(labels, np.uint8)[:, None], pixels]
    return np.concatenate(columns, axis=1)


def cifar10(folder, **files):
    (folder / "batches.meta.txt").write_text("\n".join(NAMES10) + "\n\n")
    for name, content in files.items():
        data = content if isinstance(content, bytes) else content.tobytes()
        (folder / f"{name}.bin").write_bytes(data)
    return folder


def test_cifar10(tmp_path):
    train, test = records([0, 9, 3]), records([1, 2])
    source = read(str(cifar10(tmp_path, data_batch_1=train, test_batch=test)))
    assert (source.kind, source.classes) == ("cifar", tuple(NAMES10))
    first, second = source.parts
    assert first.targets == ("airplane", "truck", "cat")
    assert first.splits + second.splits == ("train",) * 3 + ("test",) * 2
    assert first.names[2] == "data_batch_1[2]"
    # Pixel (row 5, column 7) of channel 2 stands at 2·1024 + 5·32 + 7.
    assert first.pixels.shape == (3, 32, 32, 3)
    assert first.pixels[1, 5, 7, 2] == train[1, 1 + 2 * 1024 + 5 * 32 + 7]
    assert first.pixels[0, 31, 0, 1] == train[0, 1 + 1024 + 31 * 32]
    assert Counter(f.code for f in source.faults) == {"missing-part": 4}


def test_cifar100_uses_the_fine_labels(tmp_path):
    (tmp_path / "fine_label_names.txt").write_text("\n".join(f"c{i:02}" for i in range(100)))
    (tmp_path / "train.bin").write_bytes(records([99, 5], [19, 0]).tobytes())
    (tmp_path / "test.bin").write_bytes(records([7], [1]).tobytes())
    source = read(str(tmp_path))
    assert [p.targets for p in source.parts] == [("c07",), ("c99", "c05")]
    assert not source.faults
    one = read(str(tmp_path / "train.bin"))
    assert [p.splits for p in one.parts] == [("train", "train")]


def test_cifar_label_out_of_range_is_skipped_and_counted(tmp_path):
    source = read(str(cifar10(tmp_path, data_batch_1=records([0, 10, 3, 255]))))
    (part,) = source.parts
    assert part.targets == ("airplane", "cat")
    assert part.names == ("data_batch_1[0]", "data_batch_1[2]")
    assert len(part.pixels) == 2
    assert source.skipped == 2
    bad = [f for f in source.faults if f.policy == "skip"]
    assert [(f.path, f.code, f.offset) for f in bad] == [
        ("data_batch_1[1]", "label-range", 3073),
        ("data_batch_1[3]", "label-range", 3 * 3073),
    ]


def test_cifar_without_names_calls_classes_by_number(tmp_path):
    (tmp_path / "any.bin").write_bytes(records([0, 1]).tobytes())
    source = read(str(tmp_path / "any.bin"))
    assert source.classes == tuple("0123456789")
    assert source.parts[0].splits == ("", "")
    assert [f.code for f in source.faults] == ["missing-names"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"data_batch_1": b""}, ["empty"]),
        ({"data_batch_1": records([0, 1], [2, 3])}, ["which are records of CIFAR-100"]),
        ({"train": records([0, 1])}, ["both"]),
        ({"data_batch_1": records([77, 78])}, ["expected labels below 10"]),
    ],
)
def test_cifar_damage(tmp_path, files, words):
    refused(cifar10(tmp_path, **files), *words)


@pytest.mark.parametrize("text", ["a\nb\n", "\n".join("a" * 10), "\n".join([*NAMES10[:9], "Cat"])])
def test_cifar_bad_names(tmp_path, text):
    cifar10(tmp_path, data_batch_1=records([0, 1]))
    (tmp_path / "batches.meta.txt").write_text(text)
    refused(tmp_path, "batches.meta.txt")


@pytest.mark.parametrize(
    ("name", "edition"), [("data_batch_1", "cifar-10-binary"), ("meta", "cifar-100-binary")]
)
def test_cifar_pickles_are_never_opened(tmp_path, name, edition):
    # Unpickling this would raise; it is a call of a function that does not exist.
    (tmp_path / name).write_bytes(b"\x80\x02cneocog.nothing\nexplode\n)R.")
    refused(tmp_path, "pickled", edition)
    refused(tmp_path / name, "pickled", edition)


@FUZZ
@given(
    data=st.binary(max_size=100),
    size=st.sampled_from([0, 3072, 3073, 3074, 6146, 6148]),
    name=st.sampled_from(["data_batch_1.bin", "train.bin", "x.bin"]),
    names=st.binary(max_size=60),
)
def test_cifar_fuzz(tmp_path, data, size, name, names):
    (tmp_path / "batches.meta.txt").write_bytes(names)
    (tmp_path / name).write_bytes((data * (size // max(1, len(data)) + 1))[:size])
    try:
        source = read(str(tmp_path / name))
    except NeocogError:
        return
    assert sum(len(p.names) for p in source.parts) + source.skipped == size // 3073
