"""What the arrays of an .npz mean. Floor 1, room data; imports floor 0 and NumPy.

Pictures, signals or volumes under `x` (or `images`, `data`), targets under `y` (or `labels`,
`target`), optional sample weights under `w`, each alone or for splits: `x_train` or `train_images`,
and so on. `classes` may name the classes, `dims` say how many axes a sample has beside its channels
(`ranks` has the rule).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from neocog.data.names import SPLITS, match_classes, refuse_lookalikes, too_few
from neocog.data.npy import read_npy, read_npz
from neocog.data.ranks import blocks, rank, rows
from neocog.data.samples import Part, Source
from neocog.errors import DataError, near
from neocog.records import Fault
from neocog.text import printable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from numpy.typing import NDArray

    from neocog.data.samples import TargetKind

__all__ = ["is_array", "read_arrays", "read_samples"]

_ROLES = (
    dict.fromkeys(("x", "image", "images", "data"), "x")
    | dict.fromkeys(("y", "label", "labels", "target", "targets", "mask", "masks"), "y")
    | dict.fromkeys(("w", "weight", "weights"), "w")
)
_ROWS = 1024
_NAMES = "save the names with numpy.array([…], dtype=str), each different, none empty"
_Targets = tuple[str, ...] | tuple[tuple[str, ...], ...] | tuple[tuple[float, ...], ...]


def _role(key: str) -> tuple[str, str] | None:
    """(`x`, `y` or `w`; split) of a key; None: another array.

    >>> _role("x_train"), _role("train_images"), _role("X"), _role("z")
    (('x', 'train'), ('x', 'train'), ('x', ''), None)
    """
    words = key.lower().split("_")
    if len(words) == 1 and words[0] in _ROLES:
        return _ROLES[words[0]], ""
    if len(words) == 2:
        for role, split in (words, reversed(words)):
            if role in _ROLES and split in SPLITS:
                return _ROLES[role], SPLITS[split]
    return None


def read_arrays(
    path: Path, *, few: bool = False, dims: int | None = None, channels: int | None = None
) -> Source:
    """The data set of an .npz file.

    Pictures are N×H×W, N×H×W×C or N×C×H×W with C 1 or 3; uint8, or floats in 0…1 (all parts
    together; they are scaled by 255) or 0…255. Signals and volumes are what `ranks.blocks` takes.
    Targets are N whole numbers or strings (classes), N×K of 0 and 1 (labels), N or N×K floats
    (numbers), or beside pictures N×H×W whole numbers (masks: a class a pixel, 255 for none).

    Args:
        path: the file.
        few: it is only scored: one class is enough.
        dims: axes of a sample beside its channels; None: as `ranks.rank` says.
        channels: how many signals and volumes have, where that is known.

    Raises:
        DataError: missing or doubled keys, lengths that differ, another shape or type, NaN,
            infinity, values out of range, classes that do not match, and all of `read_npz`.
    """
    where = printable(path.name)
    arrays, others = read_npz(
        path, lambda key: key in ("classes", "dims") or _role(key) is not None
    )
    splits = _by_split(arrays, where)
    names = _classes(arrays["classes"], where) if "classes" in arrays else ()
    y = {split: _column(found["y"]) for split, found in splits.items()}
    x = {split: found["x"] for split, found in splits.items()}
    pixels = _samples(x, arrays.get("dims"), dims, channels, where)
    masks = _masks(y, pixels, where)
    kind: TargetKind = "mask"
    classes = names
    faults: list[Fault] = []
    targets: dict[str, _Targets] = {split: ("",) * len(one) for split, one in y.items()}
    if not masks:
        kind, classes, targets, faults = _targets(y, names, where, few)
    faults += [
        _fault(name, "stray-array", "the name is none that neocog knows; it is ignored")
        for name in others
    ]
    parts = []
    for split, images in pixels.items():
        n = len(images)
        parts.append(
            Part(
                names=tuple(f"{split or 'x'}[{i}]" for i in range(n)),
                splits=(split,) * n,
                targets=targets[split],
                pixels=images,
                masks=masks.get(split),
                weights=_weights(splits[split]["w"], n, where) if "w" in splits[split] else None,
            )
        )
    return Source(
        kind="npz", target=kind, classes=classes, parts=tuple(parts), faults=tuple(faults)
    )


def _masks(
    y: Mapping[str, NDArray[Any]], x: Mapping[str, NDArray[Any]], where: str
) -> dict[str, NDArray[Any]]:
    """The masks by split; empty where targets are something else.

    Raises:
        DataError: masks of another size than their pictures, or that are no whole numbers.
    """
    if any(array.ndim < 3 for array in y.values()) or any(one.ndim != 4 for one in x.values()):
        return {}
    found = {s: a[..., 0] if a.ndim == 4 and a.shape[3] == 1 else a for s, a in y.items()}
    for split, array in found.items():
        if array.dtype.kind not in "biu" or array.shape != x[split].shape[:3]:
            raise DataError(
                f"{where}: y: expected masks of whole numbers {x[split].shape[:3]}, one for each "
                f"pixel of the pictures; found {array.dtype} {array.shape}",
                "save the number of the class of each pixel, 255 where it has none",
            )
    return found


def _fault(path: str, code: str, reason: str) -> Fault:
    return Fault(path=path, format="npz", code=code, reason=reason, policy="accept")


def _by_split(arrays: Mapping[str, NDArray[Any]], where: str) -> dict[str, dict[str, NDArray[Any]]]:
    """Split → role → array, complete and of equal lengths."""
    splits: dict[str, dict[str, NDArray[Any]]] = {}
    keys: dict[tuple[str, str], str] = {}
    for key, array in arrays.items():
        if (found := _role(key)) is None:
            continue
        role, split = found
        if found in keys:
            raise DataError(
                f"{where}: both {keys[found]!r} and {key!r} hold the same thing",
                "keep one of them",
            )
        keys[found] = key
        splits.setdefault(split, {})[role] = array
    if "" in splits and len(splits) > 1:
        if "train" in splits:
            raise DataError(
                f"{where}: expected either x or x_train, found both", "rename or drop one pair"
            )
        splits["train"] = splits.pop("")
    if not splits:
        raise DataError(
            f"{where}: expected x and y, or x_train and y_train and so on, found "
            + (", ".join(map(repr, sorted(arrays))) or "no such array"),
            "save it with numpy.savez(path, x_train=…, y_train=…, x_test=…, y_test=…)",
        )
    for split, found_here in splits.items():
        suffix = f"_{split}" if split else ""
        for role in "xy":
            if role not in found_here:
                raise DataError(
                    f"{where}: expected the array {role + suffix!r}, found none",
                    "samples are called x, targets y, each with the same ending",
                )
        lengths = [array.shape[0] if array.ndim else -1 for array in found_here.values()]
        if lengths[0] < 1 or len(set(lengths)) > 1:
            told = ", ".join(f"{k + suffix}: {v.shape}" for k, v in sorted(found_here.items()))
            raise DataError(
                f"{where}: expected arrays with as many rows, at least one; found {told}",
                "samples and targets belong together row by row",
            )
    return {s: splits[s] for s in ("", "train", "val", "test") if s in splits}


def _text(array: NDArray[Any], where: str) -> list[str]:
    """Strings of a 1-D array of str or (UTF-8) bytes."""
    if array.dtype.kind == "S":
        try:
            return [printable(value.decode("utf-8")) for value in array.tolist()]
        except UnicodeDecodeError as error:
            raise DataError(
                f"{where}: expected names in UTF-8, found other bytes", _NAMES
            ) from error
    try:
        return [printable(value) for value in array.tolist()]
    except ValueError as error:  # a code unit beyond Unicode
        raise DataError(f"{where}: expected text, found no Unicode", _NAMES) from error


def _classes(array: NDArray[Any], where: str) -> tuple[str, ...]:
    if array.ndim != 1 or array.dtype.kind not in "US":
        raise DataError(
            f"{where}: classes: expected a 1-D array of strings, found {array.dtype} of shape "
            f"{array.shape}",
            _NAMES,
        )
    names = tuple(_text(array, where))
    if len(set(names)) != len(names) or not all(names):
        raise DataError(f"{where}: classes: expected different names, none of them empty", _NAMES)
    refuse_lookalikes(names, where)
    return names


def _column(y: NDArray[Any]) -> NDArray[Any]:
    """N×1 as N: one target a sample."""
    return y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y


def _targets(
    y: Mapping[str, NDArray[Any]], names: tuple[str, ...], where: str, few: bool
) -> tuple[TargetKind, tuple[str, ...], dict[str, _Targets], list[Fault]]:
    """Kind, class names, targets by split, remarks."""
    forms = {(a.dtype.kind.translate(_FORMS), *a.shape[1:]) for a in y.values()}
    if len(forms) > 1:
        told = ", ".join(f"{s or 'y'}: {a.dtype} {a.shape}" for s, a in y.items())
        raise DataError(
            f"{where}: expected targets of one type in all parts, found {told}",
            "save y_train, y_val and y_test alike",
        )
    form = next(iter(forms))
    if len(form) > 2 or (len(form) == 2 and (form[0] == "U" or form[1] == 0)):
        raise DataError(
            f"{where}: y: expected N classes, N×K labels or N×K numbers, found shape "
            f"{next(iter(y.values())).shape}",
            "save one row of targets a sample",
        )
    if form[0] == "f":
        return _numbers(y, names, where)
    if form[0] == "U":
        text = {split: _text(array, where) for split, array in y.items()}
        return _named(text, names, where, 1 if few else 2)
    if len(form) == 2:
        return _labels(y, names, where)
    return _indexed(y, names, where, 1 if few else 2)


_FORMS = str.maketrans("buS", "iiU")


def _numbers(
    y: Mapping[str, NDArray[Any]], names: tuple[str, ...], where: str
) -> tuple[TargetKind, tuple[str, ...], dict[str, _Targets], list[Fault]]:
    rows = {s: a.astype(np.float64).reshape(len(a), -1) for s, a in y.items()}
    width = next(iter(rows.values())).shape[1]
    for split, array in rows.items():
        if not np.isfinite(array).all():
            at = int(np.argmin(np.isfinite(array).all(axis=1)))
            raise DataError(
                f"{where}: y: expected finite numbers, found {array[at].tolist()} in "
                f"{split or 'y'}[{at}]",
                "drop or repair that row",
            )
    if names and len(names) != width:
        raise DataError(
            f"{where}: classes: expected {width} column names, found {len(names)}", _NAMES
        )
    columns = names or (("value",) if width == 1 else tuple(f"value_{k}" for k in range(width)))
    return "numbers", columns, {s: tuple(map(tuple, a.tolist())) for s, a in rows.items()}, []


def _named(
    text: Mapping[str, list[str]], names: tuple[str, ...], where: str, least: int
) -> tuple[TargetKind, tuple[str, ...], dict[str, _Targets], list[Fault]]:
    found = {split: set(values) for split, values in text.items()}
    known, faults = match_classes(found, where, "npz", least=least)
    if "" in set().union(*found.values()):
        raise DataError(f"{where}: y: expected class names, found an empty one", _NAMES)
    if names and (unknown := sorted(known - set(names))):
        raise DataError(
            f"{where}: y: the class {unknown[0]!r} is not among `classes`", near(unknown[0], names)
        )
    targets: dict[str, _Targets] = {split: tuple(values) for split, values in text.items()}
    return "class", names or tuple(sorted(known)), targets, faults


def _labels(
    y: Mapping[str, NDArray[Any]], names: tuple[str, ...], where: str
) -> tuple[TargetKind, tuple[str, ...], dict[str, _Targets], list[Fault]]:
    width = next(iter(y.values())).shape[1]
    if any(((a != 0) & (a != 1)).any() for a in y.values()):
        raise DataError(
            f"{where}: y: expected 0 and 1 in an N×K array of whole numbers, found others",
            "one column a label; for numbers save floats, for classes save one column",
        )
    if names and len(names) != width:
        raise DataError(
            f"{where}: classes: expected {width} label names, found {len(names)}", _NAMES
        )
    labels = names or tuple(map(str, range(width)))
    faults = []
    if all((a.sum(axis=1) == 1).all() for a in y.values()):
        reason = "every row has exactly one label; for classes save y.argmax(1)"
        faults.append(_fault("y", "one-hot", reason))
    targets: dict[str, _Targets] = {
        split: tuple(tuple(labels[k] for k in np.flatnonzero(row)) for row in array)
        for split, array in y.items()
    }
    return "labels", labels, targets, faults


def _indexed(
    y: Mapping[str, NDArray[Any]], names: tuple[str, ...], where: str, least: int
) -> tuple[TargetKind, tuple[str, ...], dict[str, _Targets], list[Fault]]:
    low, high = min(int(a.min()) for a in y.values()), max(int(a.max()) for a in y.values())
    limit = len(names) or 1 << 16
    if low < 0 or high >= limit:
        raise DataError(
            f"{where}: y: expected classes from 0 to {limit - 1}, found {low} to {high}",
            "number the classes from 0, or save numbers to predict as floats",
        )
    classes = names or tuple(map(str, range(high + 1)))
    if len(set().union(*(np.unique(a).tolist() for a in y.values()))) < least:
        raise too_few(classes[low : low + 1], f"{where}: y")
    faults = [
        _fault(split or "y", "missing-class", f"there is no sample of the class {classes[k]!r}")
        for split, a in y.items()
        for k in np.flatnonzero(np.bincount(a.astype(np.int64), minlength=len(classes)) == 0)
    ]
    targets: dict[str, _Targets] = {
        split: tuple(classes[int(k)] for k in a.tolist()) for split, a in y.items()
    }
    return "class", classes, targets, faults


def _weights(w: NDArray[Any], n: int, where: str) -> tuple[float, ...]:
    w = _column(w)
    if w.shape != (n,) or w.dtype.kind not in "iuf" or not (np.isfinite(w) & (w >= 0)).all():
        raise DataError(
            f"{where}: w: expected {n:,} finite numbers ≥ 0, found {w.dtype} {w.shape}",
            "a weight says how much a sample counts; leave w out to count each as 1",
        )
    return tuple(w.astype(np.float64).tolist())


def is_array(path: str) -> bool:
    """Whether a file is called like one that holds arrays.

    >>> is_array("sounds.npz"), is_array("one.NPY"), is_array("photo.png")
    (True, True, False)
    """
    return path.lower().endswith((".npz", ".npy"))


def read_samples(
    path: Path, *, size: tuple[int, ...], channels: int
) -> tuple[list[str], NDArray[Any]]:
    """The samples of an .npz or .npy file that a network is asked about, without any targets, in
    the order of their parts.

    Args:
        path: an .npz as for `read_arrays`, where `y` may be missing, or an .npy with one array.
            An array may also be one sample: `ranks.rows` says which.
        size: of the network's input. Pictures of any size are taken.
        channels: of the network's input.

    Returns:
        What each is called, `[3]` or `:test[3]`, of one alone nothing or `:test`; and all of them,
        channels last.

    Raises:
        DataError: as `read_arrays` does for samples, and `ranks.rows`; parts that differ.
    """
    where = printable(path.name)
    told = None
    if path.name.lower().endswith(".npy"):
        x = {"": read_npy(path)}
    else:
        arrays, _ = read_npz(path, lambda key: key == "dims" or (_role(key) or " ")[0] == "x")
        told = arrays.pop("dims", None)
        x = {role[1]: array for key, array in arrays.items() if (role := _role(key))}
        if len(x) < len(arrays) or not x:
            raise DataError(
                f"{where}: expected samples under x, or x_train, x_val and x_test; found "
                + (", ".join(map(repr, sorted(arrays))) or "no such array"),
                "save them with numpy.savez(path, x=…)",
            )
    if any(array.dtype.kind not in "buif" for array in x.values()):
        shapes = ", ".join(f"{array.dtype} {array.shape}" for array in x.values())
        raise DataError(f"{where}: x: expected samples, found {shapes}", "one sample a row")
    rank(x.values(), told, len(size), where)
    given = {s: rows(x[s], size, channels, where) for s in ("", *SPLITS) if s in x}
    found = _samples(given, None, len(size), channels, where)
    names = [
        (f":{split}" if split else "") + (f"[{row}]" if x[split].ndim == given[split].ndim else "")
        for split, array in found.items()
        for row in range(len(array))
    ]
    if len({array.shape[1:] for array in found.values()}) > 1:
        raise DataError(f"{where}: x: expected one size in all parts", "save each in its own file")
    return names, np.concatenate(list(found.values()))


def _samples(
    x: Mapping[str, NDArray[Any]],
    told: NDArray[Any] | None,
    asked: int | None,
    channels: int | None,
    where: str,
) -> dict[str, NDArray[Any]]:
    """Pictures, signals or volumes, channels last."""
    dims = rank(x.values(), told, asked, where)
    return dict(_pixels(x, where)) if dims == 2 else blocks(x, dims, channels, where)


def _pixels(x: Mapping[str, NDArray[Any]], where: str) -> dict[str, NDArray[np.uint8]]:
    """All pictures as N×H×W×C uint8."""
    shaped = {split: _channels_last(array, where) for split, array in x.items()}
    scale, top = 1.0, 0.0
    for split, array in shaped.items():
        if array.dtype.kind == "f":
            top = max(top, _highest(array, f"{where}: x{'_' + split if split else ''}"))
        elif array.dtype != np.uint8:
            raise DataError(
                f"{where}: x: expected uint8 or floats, found {array.dtype}",
                "convert with x.astype('uint8'), after scaling it to 0…255",
            )
    if top <= 1:
        scale = 255.0
    done = {}
    for split, array in shaped.items():
        if array.dtype == np.uint8:
            done[split] = np.ascontiguousarray(array)
            continue
        pixels = np.empty(array.shape, np.uint8)
        for at in range(0, len(array), _ROWS):  # by rows: a float copy of it all may not fit
            pixels[at : at + _ROWS] = np.rint(array[at : at + _ROWS].astype(np.float64) * scale)
        done[split] = pixels
    return done


def _highest(array: NDArray[Any], where: str) -> float:
    """The largest value; refuses what is no brightness."""
    top = 0.0
    for at in range(0, len(array), _ROWS):
        block = array[at : at + _ROWS]
        if not np.isfinite(block).all():
            raise DataError(
                f"{where}: expected finite values, found NaN or infinity",
                "drop or repair those pictures",
            )
        if block.min() < 0 or block.max() > 255:
            raise DataError(
                f"{where}: expected values in 0…1 or 0…255, found {block.min():g} … "
                f"{block.max():g}",
                "undo the normalisation: neocog normalises by itself",
            )
        top = max(top, float(block.max()))
    return top


def _channels_last(x: NDArray[Any], where: str) -> NDArray[Any]:
    """N×H×W×C, from any of the three layouts; an ambiguous shape is refused."""
    if x.ndim == 3 and x.size:
        return x[..., np.newaxis]
    if x.ndim == 4 and x.size:
        first, last = x.shape[1] in (1, 3), x.shape[3] in (1, 3)
        if last and not first:
            return x
        if first and not last:
            return x.transpose(0, 2, 3, 1)
        if first and last:
            raise DataError(
                f"{where}: x: the shape {x.shape} can be read as N×H×W×C and as N×C×H×W",
                "pad the pictures to more than 3 pixels",
            )
    raise DataError(
        f"{where}: x: expected N×H×W, N×H×W×C or N×C×H×W with 1 or 3 channels, found {x.shape}",
        "reshape the pictures, for example x.reshape(-1, 28, 28); signals and volumes say what "
        "they are: numpy.savez(…, dims=1) or dims=3, or --set data.dims=1",
    )
