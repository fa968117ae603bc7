"""Archives: what is unpacked, and that nothing is when anything is wrong."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import random
import tarfile
import zipfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neocog.data import archive
from neocog.data.archive import unpack
from neocog.data.sources import read, signature
from neocog.errors import DataError, NeocogError

FILES = {"set/a/1.jpg": b"one", "set/b/2.jpg": b"two" * 1000, "set/b/deep/3.jpg": b""}


@pytest.fixture(autouse=True)
def _cache(tmp_path, monkeypatch):
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "cache"))


def tar_bytes(files=FILES, members=()):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
        for info in members:
            tar.addfile(info)
    return buffer.getvalue()


def zip_bytes(files=FILES, members=()):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in (*files.items(), *members):
            file.writestr(name, content)
    return buffer.getvalue()


def store(tmp_path, name, content):
    path = tmp_path / name
    path.write_bytes(content)
    return path


def refused(tmp_path, path, message):
    with pytest.raises(DataError, match=message):
        unpack(path)
    assert not list((tmp_path / "cache").rglob("*.jpg"))
    assert not [p for p in (tmp_path / "cache").rglob("*") if p.parent.name == "archives"]


@pytest.mark.parametrize(
    ("name", "pack"),
    [
        ("x.zip", lambda: zip_bytes()),
        ("x.tar", lambda: tar_bytes()),
        ("x.tar.gz", lambda: gzip.compress(tar_bytes())),
        ("x.tgz", lambda: gzip.compress(tar_bytes())),
        ("x.tar.bz2", lambda: bz2.compress(tar_bytes())),
        ("x.tar.xz", lambda: lzma.compress(tar_bytes())),
        ("no-ending", lambda: lzma.compress(tar_bytes())),
    ],
)
def test_every_kind_unpacks_once_to_the_same(tmp_path, name, pack):
    path = store(tmp_path, name, pack())
    folder = unpack(path)
    assert {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*.jpg")} == FILES
    stamp = (folder / "set/a/1.jpg").stat().st_ino
    assert unpack(path) == folder
    assert (folder / "set/a/1.jpg").stat().st_ino == stamp
    source = read(str(path))
    assert (source.kind, source.classes) == ("folder", ("a", "b"))
    assert source.parts[0].names == ("a/1.jpg", "b/2.jpg", "b/deep/3.jpg")
    assert len(signature(str(path))) == 64
    assert [p.name for p in (tmp_path / "cache/archives").iterdir()] == [folder.name]


@pytest.mark.parametrize(
    "name",
    [
        "../evil.jpg",
        "a/../../evil.jpg",
        "/etc/evil.jpg",
        "a\\..\\evil.jpg",
        "C:/evil.jpg",
        "\\x.jpg",
    ],
)
def test_members_that_leave_the_folder(tmp_path, name):
    files = {**FILES, name: b"x"}
    refused(tmp_path, store(tmp_path, "x.tar", tar_bytes(files)), "leads out")
    refused(tmp_path, store(tmp_path, "x.zip", zip_bytes(files)), "leads out")


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE]
)
def test_links_and_special_members(tmp_path, kind):
    info = tarfile.TarInfo("set/a/link.jpg")
    info.type, info.linkname = kind, "1.jpg"
    path = store(tmp_path, "x.tar.gz", gzip.compress(tar_bytes(members=[info])))
    refused(tmp_path, path, "link or a special file")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("set/a/1.jpg", "occurs twice"),
        ("set//a/./1.jpg", "occurs twice"),
        ("set/a/1.jpg/x.jpg", "occurs twice"),
        ("set/a", "occurs twice"),
        ("set/a/1.JPG", "differ only by case"),
        ("SET/c/1.jpg", "differ only by case"),
    ],
)
def test_doubled_and_colliding_names(tmp_path, name, message):
    info = tarfile.TarInfo(name)
    refused(tmp_path, store(tmp_path, "x.tar", tar_bytes(members=[info])), message)
    if name != "set/a/1.jpg":  # zipfile warns by itself when it writes that
        refused(tmp_path, store(tmp_path, "x.zip", zip_bytes(members=[(name, b"")])), message)


def test_a_folder_may_be_named_twice(tmp_path):
    info = tarfile.TarInfo("set/a")
    info.type = tarfile.DIRTYPE
    assert unpack(store(tmp_path, "x.tar", tar_bytes(members=[info, info]))).is_dir()


def test_bombs(tmp_path, monkeypatch):
    monkeypatch.setattr(archive, "allowance", lambda size: max(100_000, 100 * size))
    files = {"a/1.jpg": bytes(300_000), "b/1.jpg": b"x"}
    for name, content in [
        ("x.zip", zip_bytes(files)),
        ("x.tar.gz", gzip.compress(tar_bytes(files))),
        ("x.tar.xz", lzma.compress(tar_bytes(files))),
    ]:
        refused(tmp_path, store(tmp_path, name, content), "expected at most")


def test_a_bomb_is_noticed_before_it_is_unpacked(tmp_path):
    """A header that promises 1 TiB: refused by the promise."""
    info = tarfile.TarInfo("a/1.jpg")
    info.size = 1 << 40
    content = gzip.compress(info.tobuf(tarfile.GNU_FORMAT) + bytes(4096))
    refused(tmp_path, store(tmp_path, "x.tar.gz", content), "expected at most")


def test_a_member_that_leads_backwards(tmp_path):
    """A negative size would send tarfile round in circles."""
    info = tarfile.TarInfo("a/1.jpg")
    info.size = -1024
    content = (
        tar_bytes({"b/1.jpg": b"x" * 2000})[:2560] + info.tobuf(tarfile.GNU_FORMAT) + bytes(2048)
    )
    refused(tmp_path, store(tmp_path, "x.tar", content), None)


def test_allowance():
    gibi = 1 << 30
    assert archive.allowance(0) == gibi // 4
    assert archive.allowance(gibi // 10) == gibi // 10 * 100
    assert archive.allowance(gibi) == 64 * gibi


@pytest.mark.parametrize("cut", [700, 1100, 2000, 5000])
def test_truncated_archives(tmp_path, cut):
    plain = tar_bytes({f"{c}/{i}.jpg": os.urandom(600) for c in "ab" for i in range(5)})
    packed = gzip.compress(plain)
    refused(tmp_path, store(tmp_path, "x.tar", plain[:cut]), None)
    refused(tmp_path, store(tmp_path, "x.tar.gz", packed[:cut]), "damaged|cut short|cannot read")
    refused(tmp_path, store(tmp_path, "x.tar.gz", packed[:-1] + b"\xff"), "damaged|cannot read")
    refused(tmp_path, store(tmp_path, "x.zip", zip_bytes()[:-30]), "damaged")


def test_a_damaged_header_is_not_the_end(tmp_path):
    """tarfile alone stops there silently and reports what came before."""
    content = bytearray(tar_bytes({"a/1.jpg": b"x", "b/1.jpg": b"y"}))
    content[1024 + 20] ^= 0xFF
    refused(tmp_path, store(tmp_path, "x.tar", bytes(content)), "cut short or damaged")


def test_damaged_zip_content_leaves_nothing(tmp_path):
    content = bytearray(zip_bytes({"a/1.jpg": os.urandom(3000), "b/1.jpg": b"y"}))
    content[1000] ^= 0xFF
    refused(tmp_path, store(tmp_path, "x.zip", bytes(content)), "damaged")


def test_archive_in_archive_and_no_data(tmp_path):
    with pytest.raises(DataError, match=r"found only inner\.zip"):
        read(str(store(tmp_path, "x.zip", zip_bytes({"inner.zip": zip_bytes()}))))
    with pytest.raises(DataError) as caught:
        read(str(store(tmp_path, "y.zip", zip_bytes({"a/1.jpg": b""}))))
    assert "y.zip" in caught.value.__notes__[0]


@settings(
    deadline=None,
    max_examples=120,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(seed=st.integers(0, 2**32), kind=st.sampled_from(["tar", "tar.gz", "zip"]))
def test_mutated_archives_raise_nothing_else(tmp_path, seed, kind):
    chance = random.Random(seed)
    content = bytearray(zip_bytes() if kind == "zip" else tar_bytes())
    for _ in range(chance.randint(1, 6)):
        content[chance.randrange(len(content))] = chance.choice(
            [0, 0x80, 0xFF, chance.randrange(256)]
        )
    data = bytes(content[: chance.choice([len(content), chance.randrange(len(content))])])
    path = store(tmp_path, f"x.{kind}", gzip.compress(data) if kind == "tar.gz" else data)
    try:
        folder = unpack(path)
    except NeocogError:
        return
    assert all(p.resolve().is_relative_to(folder) for p in folder.rglob("*"))
