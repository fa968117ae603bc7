"""What a path or a name becomes: class folders, the dispatcher, signatures, named sets."""

from __future__ import annotations

import gzip
import hashlib
import os
import struct
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from neocog.data import named
from neocog.data.cache import cache_dir
from neocog.data.names import fold, match_classes
from neocog.data.sources import read, signature
from neocog.errors import DataError
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


def fill(root: Path, *names: str) -> Path:
    """Files of one byte; a name that ends in / is an empty folder."""
    for name in names:
        path = root / name
        if name.endswith("/"):
            path.mkdir(parents=True)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(b"x")
    return root


def codes(faults: Iterable) -> dict[str, str]:
    return {fault.path: f"{fault.code}/{fault.policy}" for fault in faults}


# --- folders ---------------------------------------------------------------------------------


def test_flat_class_folders(tmp_path):
    fill(tmp_path, "cat/b.jpg", "cat/a.PNG", "cat/deep/er/c.webp", "ant/z.pgm", ".git/x/y.jpg")
    fill(tmp_path, "cat/.hidden.jpg", "cat/notes.txt", "readme.md", "__MACOSX/cat/._a.jpg")
    source = read(str(tmp_path))
    assert (source.kind, source.target, source.classes) == ("folder", "class", ("ant", "cat"))
    (part,) = source.parts
    assert part.names == ("ant/z.pgm", "cat/a.PNG", "cat/b.jpg", "cat/deep/er/c.webp")
    assert part.targets == ("ant", "cat", "cat", "cat")
    assert part.splits == ("",) * 4
    assert part.files == tuple(str(tmp_path / name) for name in part.names)
    assert part.root == tmp_path
    assert codes(source.faults) == {
        "cat/notes.txt": "stray-file/accept",
        "readme.md": "stray-file/accept",
    }


@pytest.mark.parametrize("val", ["val", "VALID", "Validation"])
def test_split_folders(tmp_path, val):
    fill(tmp_path, "Train/a/1.jpg", "Train/b/1.jpg", f"{val}/a/2.jpg", "test/b/3.jpg", "docs/")
    source = read(str(tmp_path))
    assert [(p.splits[0], p.names[0]) for p in source.parts] == [
        ("train", "Train/a/1.jpg"),
        ("val", f"{val}/a/2.jpg"),
        ("test", "test/b/3.jpg"),
    ]
    assert codes(source.faults) == {
        "docs": "stray-file/accept",
        "val": "missing-class/accept",
        "test": "missing-class/accept",
    }


def test_train_alone_is_a_split_even_though_it_is_the_only_folder(tmp_path):
    fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg")
    assert read(str(tmp_path)).parts[0].splits == ("train", "train")


def test_a_class_may_be_called_train(tmp_path):
    fill(tmp_path, "train/1.jpg", "plane/1.jpg")
    assert read(str(tmp_path)).classes == ("plane", "train")


def test_one_folder_around_it_all(tmp_path):
    fill(tmp_path, "outer/inner/a/1.jpg", "outer/inner/b/1.jpg", "__MACOSX/outer/._x")
    assert read(str(tmp_path)).classes == ("a", "b")


def test_empty_folder_of_a_validation_class_is_a_missing_class(tmp_path):
    fill(tmp_path, "train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "val/b/")
    assert codes(read(str(tmp_path)).faults) == {"val": "missing-class/accept"}


@pytest.mark.parametrize(
    ("names", "below", "classes"),
    [
        (["cat/1.jpg"], "", ("cat",)),
        (["cat/1.jpg", "cat/deep/2.jpg"], "", ("cat",)),
        (["cat/1.jpg", "cat/notes.csv"], "", ("cat",)),
        (["cat/1.jpg", "cat/._1.jpg", ".git/x/1.jpg"], "", ("cat",)),
        (["cat/1.jpg", "dog/"], "", ("cat",)),
        (["outer/cat/1.jpg"], "outer", ("cat",)),
        (["outer/inner/cat/1.jpg"], "outer/inner", ("cat",)),
        (["outer/cover.jpg", "outer/cat/1.jpg", "outer/dog/1.jpg"], "outer", ("cat", "dog")),
    ],
)
def test_a_lone_folder_of_pictures_is_a_class(tmp_path, names, below, classes):
    """A part that is only scored may hold one class; a wrapper is still seen through."""
    fill(tmp_path, *names)
    source = read(str(tmp_path), few=True)
    assert source.classes == classes
    (part,) = source.parts
    assert part.root == tmp_path / below
    assert all(name.startswith(classes) for name in part.names)
    if len(classes) == 1:
        with pytest.raises(DataError, match=r"at least two classes|found none in 'dog'") as caught:
            read(str(tmp_path))
        assert str(tmp_path / below) + ":" in caught.value.message


def test_an_empty_class_folder_of_a_scored_part_is_remarked_on(tmp_path):
    fill(tmp_path, "cat/1.jpg", "dog/")
    assert codes(read(str(tmp_path), few=True).faults) == {"dog": "empty-class/accept"}
    (tmp_path / "cat" / "1.jpg").unlink()
    with pytest.raises(DataError, match="pictures in any class folder, found none in 'cat'"):
        read(str(tmp_path), few=True)


def test_a_lone_empty_folder_is_named_as_it_was_given(tmp_path):
    fill(tmp_path, "cat/")
    for few in (False, True):
        with pytest.raises(DataError, match="found none in 'cat'") as caught:
            read(str(tmp_path), few=few)
        assert f"{tmp_path}:" in caught.value.message


def test_a_lone_folder_around_files_of_a_data_set_is_a_wrapper(tmp_path):
    (tmp_path / "outer").mkdir()
    np.savez(tmp_path / "outer" / "set.npz", x=np.zeros((2, 4, 4), np.uint8), y=[0, 1])
    assert read(str(tmp_path)).kind == "npz"
    fill(tmp_path, "table/pictures/1.jpg", "table/2.jpg")
    (tmp_path / "table" / "t.csv").write_text("path,label\npictures/1.jpg,a\n2.jpg,b\n")
    (tmp_path / "outer" / "set.npz").unlink()
    (tmp_path / "outer").rmdir()
    assert read(str(tmp_path)).kind == "csv"
    fill(tmp_path, "away/outer/set.zip")
    with pytest.raises(DataError, match=r"found only set\.zip"):
        read(str(tmp_path / "away"))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["a/1.jpg", "b/"], "found none in 'b'"),
        (["a/1.jpg", "b/notes.txt"], "found none in 'b'"),
        (["only/a/1.jpg", "only/2.txt"], "at least two classes, found only 'a'"),
        (["a/1.jpg", "cat/1.jpg", "Cat/1.jpg"], "differ only by case"),
        (["café/1.jpg", "cafe\u0301/1.jpg"], "differ only by case or Unicode form"),
        (["train/a/1.jpg", "train/b/1.jpg", "test/c/1.jpg"], "test part has the class 'c'"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/c/"], "val part has the class 'c'"),
        (["train/cat/1.jpg", "train/b/1.jpg", "val/Cat/1.jpg"], "differ only by case"),
        (["train/a/1.jpg", "train/b/1.jpg", "val/a/1.jpg", "valid/b/1.jpg"], "one folder for the"),
        (["val/a/1.jpg", "test/a/1.jpg"], "a folder train beside"),
        (["train/1.jpg", "val/1.jpg"], "class folders inside train"),
        (["1.jpg", "2.jpg"], "2 pictures and no folder"),
        ([], "found an empty folder"),
    ],
)
def test_refused_folders(tmp_path, names, message):
    fill(tmp_path, *names)
    with pytest.raises(DataError, match=message) as caught:
        read(str(tmp_path))
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint or "class 'c'" in message


def test_special_files_are_listed_and_never_opened(tmp_path):
    fill(tmp_path, "a/1.jpg", "b/1.jpg", "b/folder.jpg/inside.jpg")
    os.mkfifo(tmp_path / "a" / "pipe.jpg")
    (tmp_path / "a" / "out.jpg").symlink_to("/etc/hostname")
    (tmp_path / "a" / "self.jpg").symlink_to("self.jpg")
    source = read(str(tmp_path))
    assert source.parts[0].names == (
        *("a/1.jpg", "a/out.jpg", "a/pipe.jpg", "a/self.jpg"),
        *("b/1.jpg", "b/folder.jpg"),
    )
    assert len(signature(str(tmp_path))) == 64


def test_links_to_folders_are_skipped_and_counted(tmp_path):
    fill(tmp_path, "a/1.jpg", "b/1.jpg")
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    source = read(str(tmp_path))
    assert codes(source.faults) == dict.fromkeys(("a/up", "loop"), "linked-folder/skip")
    assert source.skipped == 2
    assert len(source.parts[0].names) == 2
    signature(str(tmp_path))


def test_names_that_are_no_utf8_or_hold_control_characters(tmp_path):
    fill(tmp_path, "b/1.jpg")
    fill(tmp_path, os.fsdecode(b"a\xff/\xe9\n\x1b.jpg"))
    source = read(str(tmp_path))
    assert source.classes == ("a\\xff", "b")
    assert source.parts[0].names[0] == "a\\xff/\\xe9\\n\\x1b.jpg"
    assert os.path.exists(source.parts[0].files[0])  # noqa: PTH110
    signature(str(tmp_path))


def test_printable_and_fold():
    assert printable("ok 你好 می‌خواهم") == "ok 你好 می‌خواهم"
    assert printable("\ud800") == "\\ud800"
    assert fold("STRASSE") == fold("straße")
    assert fold("Å") == fold("\N{ANGSTROM SIGN}") == fold("A\N{COMBINING RING ABOVE}")
    assert fold("a") != fold("ä")


def test_an_idx_part_that_is_only_scored_may_hold_one_label_or_leave_gaps(tmp_path):
    for labels, classes in ([3, 3], 4), ([0, 200], 201):
        items = b"\0\0\x08\x03" + struct.pack(">3I", 2, 1, 2) + bytes(4)
        (tmp_path / "t10k-images-idx3-ubyte").write_bytes(items)
        marks = b"\0\0\x08\x01" + struct.pack(">I", 2) + bytes(labels)
        (tmp_path / "t10k-labels-idx1-ubyte").write_bytes(marks)
        source = read(str(tmp_path), few=True)
        assert source.parts[0].targets == tuple(map(str, labels))
        assert len(source.classes) == classes
        with pytest.raises(DataError, match=r"at least two classes|damaged"):
            read(str(tmp_path))


def test_a_test_part_alone_has_its_own_classes():
    assert match_classes({"test": {"a", "b"}}, "x", "csv") == ({"a", "b"}, [])


# --- dispatch ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "source", "message"),
    [
        (["a.npz", "b.npz"], "", "expected one data set, found a.npz, b.npz"),
        (["a.npz", "cat/1.jpg", "dog/1.jpg"], "", "found a.npz and folders"),
        (["photo.jpg"], "photo.jpg", "found one picture"),
        (["x.npy"], "x.npy", "found one array"),
        (["digits.idx"], "digits.idx", "name of an IDX file"),
        (["what.ever"], "what.ever", "another kind of file"),
        (["what.ever"], "what.evr", "neither a path nor a known"),
    ],
)
def test_refused_paths(tmp_path, names, source, message):
    fill(tmp_path, *names)
    with pytest.raises(DataError, match=message) as caught:
        read(str(tmp_path / source))
    assert caught.value.hint


def test_near_names(tmp_path):
    fill(tmp_path, "photos/a/1.jpg")
    for source, near in [
        ("fashion-mnst", "'fashion-mnist'"),
        (str(tmp_path / "photo"), "'photos'"),
    ]:
        for function in (read, signature):
            with pytest.raises(DataError) as caught:
                function(source)
            assert caught.value.hint == f"did you mean {near}?"


@pytest.mark.parametrize("source", ["", "\0", "~nobody-of-that-name/x", "x" * 5000, "/dev/null"])
def test_strange_sources(source):
    with pytest.raises(DataError):
        read(source)


def test_a_pipe_is_refused_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for name in ("train-images-idx3-ubyte", "a.npz", "b.csv"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(DataError):
            read(str(tmp_path / name))
    with pytest.raises(DataError, match="special file"):
        read(str(tmp_path / "pipe"))
    with pytest.raises(DataError):
        read(str(tmp_path))


def test_a_path_goes_before_a_name(tmp_path, monkeypatch):
    fill(tmp_path, "digits/a/1.jpg", "digits/b/1.jpg")
    assert read("digits").kind == "digits"
    monkeypatch.chdir(tmp_path)
    assert read("digits").kind == "folder"


def test_readers_import_no_torch():
    code = (
        "import sys, neocog.data.sources; assert not {'torch', 'sklearn', 'PIL'} & set(sys.modules)"
    )
    subprocess.run(
        [sys.executable, "-c", code],
        check=True,
        env={**os.environ, "PYTHONPATH": ":".join(sys.path)},
    )


# --- signatures --------------------------------------------------------------------------------


def test_signature_changes_with_names_sizes_and_times(tmp_path):
    fill(tmp_path, "a/1.jpg", "a/2.jpg", "b/1.jpg")
    seen = [signature(str(tmp_path))]
    assert signature(str(tmp_path) + "/") == seen[0]
    changes = (
        lambda: os.utime(tmp_path / "a/1.jpg", ns=(1, 1)),
        lambda: (tmp_path / "a/1.jpg").write_bytes(b"longer"),
        lambda: (tmp_path / "a/1.jpg").rename(tmp_path / "a/3.jpg"),
        lambda: (tmp_path / "a/3.jpg").rename(tmp_path / "b/3.jpg"),
        lambda: (tmp_path / "c").mkdir(),
    )
    for change in changes:
        change()
        seen.append(signature(str(tmp_path)))
    assert len(set(seen)) == len(seen)
    (tmp_path / ".hidden").write_bytes(b"x")
    assert signature(str(tmp_path)) == seen[-1]


def test_signature_of_a_table_holds_its_pictures_and_nothing_else(tmp_path):
    fill(tmp_path, "p/1.png", "p/2.png", "other.txt")
    table = tmp_path / "t.csv"
    table.write_text("path,label\np/1.png,a\np/2.png,b\np/3.png,b\n")
    before = signature(str(table))
    (tmp_path / "other.txt").write_bytes(b"changed")
    assert signature(str(table)) == before
    (tmp_path / "p/2.png").write_bytes(b"changed")
    changed = signature(str(table))
    fill(tmp_path, "p/3.png")
    assert len({before, changed, signature(str(table))}) == 3


def test_signature_of_one_idx_file_holds_its_partners(tmp_path):
    fill(tmp_path, "train-images-idx3-ubyte", "train-labels-idx1-ubyte")
    before = signature(str(tmp_path / "train-images-idx3-ubyte"))
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(b"changed")
    assert signature(str(tmp_path / "train-images-idx3-ubyte")) != before


# --- named sets --------------------------------------------------------------------------------


def test_digits_are_those_of_scikit_learn():
    from sklearn.datasets import load_digits

    expected = load_digits()
    source = read("digits")
    (part,) = source.parts
    assert source.classes == tuple("0123456789")
    assert part.pixels.shape == (1797, 8, 8, 1)
    assert part.pixels.dtype == np.uint8
    assert part.pixels.max() == 255
    assert np.abs(part.pixels[..., 0] / 255 * 16 - expected.images).max() < 0.05
    assert [int(t) for t in part.targets] == expected.target.tolist()
    assert signature("digits") == signature("digits") != signature("mnist")


def test_cache_dir(monkeypatch, tmp_path):
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path / "own"))
    assert cache_dir() == tmp_path / "own"
    monkeypatch.delenv("NEOCOG_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "neocog"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "neocog"


def test_catalogue_is_well_formed():
    for described in named.SETS.values():
        for file in described.files:
            assert file.url.endswith("/" + file.name)
            assert len(bytes.fromhex(file.sha256)) == 32
            assert len(bytes.fromhex(file.unpacked)) in (0, 32)
        if described.kind == "idx":
            assert len(set(described.classes)) == 10
    hashes = [f.sha256 for s in named.SETS.values() for f in s.files]
    assert len(set(hashes)) == len(hashes)


def test_named_idx_set_takes_a_recompressed_copy_and_refuses_another(tmp_path, monkeypatch):
    """A copy with the same content serves; nothing is downloaded for it."""
    monkeypatch.setenv("NEOCOG_CACHE", str(tmp_path))
    content = {
        "images": b"\0\0\x08\x03" + struct.pack(">3I", 2, 1, 2) + bytes([1, 2, 3, 4]),
        "labels": b"\0\0\x08\x01" + struct.pack(">I", 2) + bytes([7, 2]),
    }
    home = tmp_path / "sets" / "mnist"
    home.mkdir(parents=True)
    files = []
    for file in named.SETS["mnist"].files:
        plain = content["images" if "images" in file.name else "labels"]
        files.append(replace(file, unpacked=hashlib.sha256(plain).hexdigest()))
        (home / file.name).write_bytes(gzip.compress(plain, 1))
    monkeypatch.setitem(named.SETS, "mnist", replace(named.SETS["mnist"], files=tuple(files)))
    source = read("mnist")
    assert source.parts[0].targets == ("7", "2")
    assert source.classes == tuple("0123456789")
    (home / files[0].name).write_bytes(gzip.compress(content["images"][:-1] + b"\0"))
    with pytest.raises(DataError, match="expected the SHA-256") as caught:
        read("mnist")
    assert files[0].url in caught.value.hint
    assert str(home / files[0].name) in caught.value.hint
