"""Arrays (.npz) and tables (.csv): what is read; damage beyond the battery of bad inputs."""

from __future__ import annotations

import io
import struct
import zipfile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from damage import FUZZ, mutated, refused
from neocog.data import npy
from neocog.data.sources import read, signature
from neocog.errors import DataError, NeocogError

RNG = np.random.default_rng(0)


# --- .npz --------------------------------------------------------------------------------------

X = RNG.integers(0, 256, (5, 6, 7), np.uint8)
Y = np.array([0, 1, 2, 1, 0])


def npz(folder, **arrays):
    path = folder / "set.npz"
    np.savez(path, **arrays)
    return path


@pytest.mark.parametrize(
    ("keys", "splits"),
    [
        (("x", "y"), [""]),
        (("images", "labels"), [""]),
        (("X", "target"), [""]),
        (
            ("x_train", "y_train", "x_valid", "y_valid", "x_test", "y_test"),
            ["train", "val", "test"],
        ),
        (("train_images", "train_labels", "test_images", "test_labels"), ["train", "test"]),
        (("x", "y", "x_test", "y_test"), ["train", "test"]),
    ],
)
def test_npz_keys(tmp_path, keys, splits):
    arrays = {k: Y if k[0] == "y" or "label" in k or "target" in k else X for k in keys}
    source = read(str(npz(tmp_path, **arrays)))
    assert [p.splits[0] for p in source.parts] == splits
    assert all((p.pixels[..., 0] == X).all() for p in source.parts)
    assert source.parts[0].targets == ("0", "1", "2", "1", "0")
    assert source.classes == ("0", "1", "2")
    assert read(str(tmp_path)).classes == source.classes


@pytest.mark.parametrize("c", [1, 3])
def test_npz_layouts_and_types(tmp_path, c):
    hwc = RNG.integers(0, 256, (5, 6, 7, c), np.uint8)
    hwc[0, 0, 0] = 255
    forms = [hwc, hwc.transpose(0, 3, 1, 2), np.asfortranarray(hwc)]
    forms += [hwc / 255, (hwc / 255).astype(np.float16), hwc.astype(">f4"), hwc.astype(np.float64)]
    for form in forms:
        part = read(str(npz(tmp_path, x=form, y=Y))).parts[0]
        assert (part.pixels == hwc).all()
        assert part.pixels.dtype == np.uint8
        assert part.pixels.flags.c_contiguous


def test_npz_scale_is_decided_for_all_parts_together(tmp_path):
    """A dark part of a 0…255 set must not be taken for 0…1."""
    dark, bright = np.full((5, 6, 7), 1.0), np.full((5, 6, 7), 200.0)
    source = read(str(npz(tmp_path, x_train=bright, y_train=Y, x_test=dark, y_test=Y)))
    assert [int(p.pixels.max()) for p in source.parts] == [200, 1]


@pytest.mark.parametrize(
    ("y", "kind", "classes", "targets"),
    [
        (np.array(list("babab")), "class", ("a", "b"), tuple("babab")),
        (np.array([b"b", b"a"] * 2 + [b"a"]), "class", ("a", "b"), tuple("babaa")),
        (Y[:, None].astype(np.uint8), "class", ("0", "1", "2"), tuple("01210")),
        (Y == 1, "class", ("0", "1"), tuple("01010")),
        (Y / 2, "numbers", ("value",), ((0.0,), (0.5,), (1.0,), (0.5,), (0.0,))),
        (
            np.array([[1, 0], [1, 1], [0, 0], [0, 1], [1, 1]]),
            "labels",
            ("0", "1"),
            (("0",), ("0", "1"), (), ("1",), ("0", "1")),
        ),
        (np.stack([Y, Y * 2.0], 1), "numbers", ("value_0", "value_1"), ((0.0, 0.0), (1.0, 2.0))),
    ],
)
def test_npz_targets(tmp_path, y, kind, classes, targets):
    source = read(str(npz(tmp_path, x=X, y=y)))
    assert (source.target, source.classes) == (kind, classes)
    assert source.parts[0].targets[: len(targets)] == targets


def test_npz_names_weights_and_strays(tmp_path):
    names = np.array(["red", "green", "blue", "never"])
    source = read(str(npz(tmp_path, x=X, y=Y, classes=names, w=Y * 0.5, other=Y)))
    assert source.classes == ("red", "green", "blue", "never")
    assert source.parts[0].targets[:3] == ("red", "green", "blue")
    assert source.parts[0].weights == (0, 0.5, 1, 0.5, 0)
    assert {f.code for f in source.faults} == {"missing-class", "stray-array"}
    one_hot = read(str(npz(tmp_path, x=X, y=np.eye(3, dtype=int)[Y])))
    assert [f.code for f in one_hot.faults] == ["one-hot"]


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"x": X, "images": X, "y": Y}, ["'x'", "'images'"]),
        ({"x": X, "y": Y, "x_train": X, "y_train": Y}, ["either x or x_train"]),
        ({"x": X[:0], "y": Y[:0]}, ["at least one"]),
        ({"x": X[0, 0, 0], "y": Y[0]}, ["rows"]),
        ({"x": np.zeros((5, 6, 7, 2), np.uint8), "y": Y}, ["1 or 3 channels"]),
        ({"x": np.zeros((5, 3, 7, 3), np.uint8), "y": Y}, ["can be read as"]),
        ({"x": X.astype(np.uint16), "y": Y}, ["uint16"]),
        ({"x": X / 1.0 - 128, "y": Y}, ["0…1 or 0…255", "normalis"]),
        ({"x": X, "y": Y - 1}, ["from 0", "-1"]),
        ({"x": X, "y": Y * 0}, ["two classes"]),
        ({"x": X, "y": Y + 10**9}, ["from 0 to"]),
        ({"x": X, "y": Y.astype("M8[s]")}, ["field type"]),
        ({"x": X, "y": np.full((5, 2), 3)}, ["0 and 1"]),
        ({"x": X, "y": np.zeros((5, 2, 2))}, ["y: expected"]),
        ({"x": X, "y": Y, "classes": np.array(["a", "b"])}, ["from 0 to 1"]),
        ({"x": X, "y": Y, "classes": np.array(["a", "b", "A"])}, ["differ only by case"]),
        ({"x": X, "y": Y, "classes": np.array(["a", "b", "a"])}, ["different names"]),
        ({"x": X, "y": np.array(list("abcab")), "classes": np.array(["a", "b"])}, ["'c'"]),
        ({"x": X, "y": Y, "w": -Y}, ["w: expected"]),
        ({"x_train": X, "y_train": Y, "x_test": X, "y_test": Y / 2}, ["one type in all parts"]),
        (
            {
                "x_train": X,
                "y_train": np.array(list("abaab")),
                "x_test": X,
                "y_test": np.array(list("abaac")),
            },
            ["test part has the class 'c'"],
        ),
    ],
)
def test_npz_refused(tmp_path, arrays, words):
    refused(npz(tmp_path, **arrays), "set.npz", *words)


@pytest.mark.parametrize("y", [np.full(5, 2), np.array(["x"] * 5)])
def test_npz_that_is_only_scored_may_hold_one_class(tmp_path, y):
    path = npz(tmp_path, x=X, y=y)
    assert read(str(path), few=True).parts[0].targets == tuple(map(str, y))
    refused(path, "set.npz: ", "at least two classes", f"found only '{y[0]}'")


def stored(folder, **members):
    path = folder / "set.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return path


def npy_bytes(array):
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def test_npz_header_promises_more_or_less_than_the_file_holds(tmp_path):
    y, x = npy_bytes(Y), npy_bytes(X)
    huge = x.replace(b"(5, 6, 7)", b"(5, 6, 7000000000)")
    huge = huge[:8] + struct.pack("<H", len(huge) - 10 - X.nbytes) + huge[10:]
    refused(stored(tmp_path, x=huge, y=y), "promises", "210,000,000,000", "holds 210")
    refused(stored(tmp_path, x=x[:-1], y=y), "promises", "holds 209")
    refused(stored(tmp_path, x=x + b"x", y=y), "promises", "holds 211")
    refused(stored(tmp_path, x=b"\x93NUMPY\x01\0\xff\xff", y=y), "damaged")
    refused(stored(tmp_path, x=b"garbage", y=y), "NumPy array")
    refused(stored(tmp_path, x=x.replace(b"'|u1'", b"'|V1'"), y=y), "field type")
    (tmp_path / "set.npz").write_bytes(b"PK\x03\x04 no zip at all")
    refused(tmp_path / "set.npz", "damaged")


def test_npz_bomb(tmp_path, monkeypatch):
    monkeypatch.setattr(npy, "allowance", lambda size, least: 100 * size)
    path = tmp_path / "set.npz"
    np.savez_compressed(path, x=np.zeros((1000, 100, 100), np.uint8), y=np.arange(1000))
    refused(path, "at most")


@FUZZ
@given(seed=st.integers(0, 2**32), inside=st.booleans())
def test_npz_fuzz(tmp_path, seed, inside):
    if inside:
        path = stored(tmp_path, x=mutated(npy_bytes(X), seed), y=npy_bytes(Y))
    else:
        path = npz(tmp_path, x=X, y=Y)
        path.write_bytes(mutated(path.read_bytes(), seed))
    try:
        part = read(str(path)).parts[0]
    except NeocogError:
        return
    assert len(part.pixels) == len(part.targets)


@FUZZ
@given(header=st.text(max_size=80) | st.sampled_from(["{" * 500, "[" * 5000, "9" * 5000]))
def test_npz_header_fuzz(tmp_path, header):
    text = header.encode("utf-8", "replace")
    content = b"\x93NUMPY\x03\0" + struct.pack("<I", len(text)) + text
    with pytest.raises(DataError):
        read(str(stored(tmp_path, x=content, y=npy_bytes(Y))))


# --- .csv --------------------------------------------------------------------------------------


def csv_file(folder, text, pictures=("a.png", "b.png", "sub/c.png")):
    for name in pictures:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    path = folder / "table.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    ("text", "kind", "classes", "targets"),
    [
        ("path,label\na.png,cat\nb.png,ant\n", "class", ("ant", "cat"), ("cat", "ant")),
        ("Image , CLASS\r\na.png, 10\r\n\r\nb.png,9", "class", ("9", "10"), ("10", "9")),
        ("file,target\na.png,1.5\nb.png,-2\n", "numbers", ("target",), ((1.5,), (-2.0,))),
        ("filename,value\na.png,1\nb.png,2\n", "numbers", ("value",), ((1.0,), (2.0,))),
        (
            "path,value_x,extra,value_y\na.png,1,?,2e3\nb.png,.5,?,3.\n",
            "numbers",
            ("value_x", "value_y"),
            ((1.0, 2000.0), (0.5, 3.0)),
        ),
        (
            "path,labels\na.png,x|y;x\nb.png,\n",
            "labels",
            ("x", "y"),
            (("x", "y"), ()),
        ),
        ("path,labels\na.png,x\nb.png,\n", "labels", ("x",), (("x",), ())),
        (
            '\ufeffpath,label,note\n"a.png","a ""b""","line\nline"\nb.png,c,\n',
            "class",
            ('a "b"', "c"),
            ('a "b"', "c"),
        ),
    ],
)
def test_csv(tmp_path, text, kind, classes, targets):
    path = csv_file(tmp_path, text)
    for source in (read(str(path)), read(str(tmp_path))):
        assert (source.kind, source.target, source.classes) == ("csv", kind, classes)
        (part,) = source.parts
        assert part.targets == targets
        assert part.names == ("a.png", "b.png")
        assert part.files == (str(tmp_path / "a.png"), str(tmp_path / "b.png"))
        assert part.splits == ("", "")
        assert part.weights is None
        assert source.skipped == 0


def test_csv_splits_and_weights(tmp_path):
    text = "path,label,split,weight\na.png,x,Train,2\nb.png,y,TRAIN,0.5\nsub/c.png,y,valid,1\n"
    source = read(str(csv_file(tmp_path, text)))
    assert source.parts[0].splits == ("train", "train", "val")
    assert source.parts[0].weights == (2, 0.5, 1)
    assert [(f.path, f.code) for f in source.faults] == [("val", "missing-class")]


def test_csv_bad_rows_are_skipped_with_their_lines(tmp_path):
    (tmp_path.parent / "outside.png").write_bytes(b"x")
    text = (
        b"path,label,weight\n"
        b"a.png,x,1\n"
        b"gone.png,x,1\n"
        b"b.png,x\n"
        b"b.png,x,1,2\n"
        b"b.png,\xff,1\n"
        b"b.png,x\0,1\n"
        b"../outside.png,x,1\n"
        b"/etc/hostname,x,1\n"
        b",x,1\n"
        b"b.png,,1\n"
        b"b.png,x,-1\n"
        b"b.png,x,nan\n"
        b'b.png,"x"y,1\n'
        b"b.png," + b"x" * 200_000 + b",1\n"
        b"sub/../b.png,y,1\n"
    )
    source = read(str(csv_file(tmp_path, text)))
    assert source.parts[0].names == ("a.png", "sub/../b.png")
    found = [(f.offset, f.code) for f in source.faults]
    assert found == [
        (3, "missing-image"),
        (4, "ragged-row"),
        (5, "ragged-row"),
        (6, "bad-utf-8"),
        (7, "nul"),
        (8, "leaves-root"),
        (9, "leaves-root"),
        (10, "missing-image"),
        (11, "missing-target"),
        (12, "bad-weight"),
        (13, "bad-weight"),
        (14, "bad-quotes"),
        (15, "bad-quotes"),
    ]
    assert {f.policy for f in source.faults} == {"skip"}
    assert source.skipped == len(found)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ["one column of pictures", "empty header"]),
        ("label,x\na,b\n", ["one column of pictures", "label, x"]),
        ("path;label\na.png;x\n", ["separated by commas"]),
        ("path,file,label\n", ["path, file"]),
        ("path,path,label\n", ["'path' occurs twice"]),
        ("path,x\na.png,y\n", ["one target"]),
        ("path,label,value\n", ["one target", "label, value"]),
        ("path,label,class\n", ["one target"]),
        ("path,label\n", ["expected rows"]),
        ("path,label\ngone.png,a\n", ["expected rows", "gone.png"]),
        ("path,label\na.png,cat\nb.png,3\n", ["found both", "'cat' in line 2", "3 in line 3"]),
        ("path,label\na.png,1.5\nb.png,nan\n", ["found both", "'nan'"]),
        ("path,value\na.png,1\nb.png,x\n", ["line 3", "finite number", "'x'"]),
        ("path,value\na.png,1\nb.png,1e999\n", ["line 3", "1e999"]),
        ("path,label\na.png,x\nb.png,x\n", ["two classes"]),
        ("path,labels\na.png,\nb.png,\n", ["at least one class, found none"]),
        ("path,label\na.png,cat\nb.png,Cat\n", ["differ only by case"]),
        ("path,label\na.png,1\nb.png,01\n", ["several ways"]),
        ("path,label,split\na.png,x,train\nb.png,y,tests\n", ["line 3", "'tests'", "'test'"]),
        ("path,label,split\na.png,x,train\nb.png,y,\n", ["line 3", "empty cell"]),
        ("path,label,split\na.png,x,train\nb.png,y,train\nsub/c.png,z,val\n", ["val part", "'z'"]),
        ('path,label\na.png,x\nb.png,"y\nsub/c.png,z\n', ["line 3", "never closed"]),
        ("path,label\n".encode("utf-16"), ["header"]),
        (b"\x89PNG\r\n\x1a\n\0\0", ["table.csv"]),
    ],
)
def test_csv_refused(tmp_path, text, words):
    refused(csv_file(tmp_path, text), "table.csv", *words)


@pytest.mark.parametrize(
    ("text", "classes"),
    [
        ("path,label\na.png,x\nb.png,x\n", ("x",)),
        ("path,label\na.png,7\n", ("7",)),
        ("path,labels\na.png,\nb.png,\n", ()),
    ],
)
def test_csv_that_is_only_scored(tmp_path, text, classes):
    path = csv_file(tmp_path, text)
    assert read(str(path), few=True).classes == classes
    with pytest.raises(DataError, match="expected at least"):
        read(str(path))


def test_csv_beside_folders(tmp_path):
    """A table that names pictures and targets is the data set; any other table is a stray file."""
    path = csv_file(tmp_path, "path,label\ncat/1.jpg,x\ndog/1.jpg,y\n", ["cat/1.jpg", "dog/1.jpg"])
    assert read(str(tmp_path)).classes == ("x", "y")
    path.write_text("camera,date\n1,2\n")
    source = read(str(tmp_path))
    assert source.classes == ("cat", "dog")
    assert [f.path for f in source.faults] == ["table.csv"]
    (tmp_path / "a.csv").write_text("path,label\n")
    (tmp_path / "b.csv").write_text("path,label\n")
    refused(tmp_path, "a.csv, b.csv")


@FUZZ
@given(seed=st.integers(0, 2**32))
def test_csv_fuzz(tmp_path, seed):
    text = b'path,label,split,weight\na.png,x,train,1\nb.png,"y",train,2\nsub/c.png,x,val,0\n'
    path = csv_file(tmp_path, mutated(text, seed))
    assert len(signature(str(path))) == 64
    try:
        source = read(str(path))
    except NeocogError:
        return
    assert len(source.parts[0].names) >= 1
    assert source.skipped == sum(f.policy == "skip" for f in source.faults)


@FUZZ
@given(
    cells=st.lists(st.text(max_size=8), max_size=6),
    header=st.sampled_from(["label", "value", "labels"]),
)
def test_csv_random_cells(tmp_path, cells, header):
    rows = "".join(f"a.png,{cell}\n" for cell in cells)
    path = csv_file(tmp_path, f"path,{header}\n{rows}".encode("utf-8", "replace"))
    try:
        read(str(path))
    except NeocogError:
        return
