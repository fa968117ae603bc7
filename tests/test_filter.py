"""Filters of pictures against SciPy, PyTorch's own layer, and what the figure and the file say."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from scipy import ndimage
from torch import nn

from neocog.cli import cli
from neocog.errors import ConfigError, DataError, NeocogError
from neocog.kernels import ALIASES, KERNELS, correlate, kernel, named_kernel
from neocog.verbs.filter import answers, figure

if TYPE_CHECKING:
    from pathlib import Path

MODES = {"zeros": "constant", "reflect": "mirror", "replicate": "nearest", "circular": "wrap"}
"""What SciPy calls them; its `reflect` repeats the edge, which PyTorch's does not."""


def pixels(high: int = 9, wide: int = 12, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (high, wide, channels), np.uint8)


def matrix(high: int, wide: int) -> tuple[str, np.ndarray]:
    """A matrix as people write it, and as numbers."""
    values = np.random.default_rng(1).integers(-20, 20, (high, wide)) / 8
    return "; ".join(" ".join(f"{value:g}" for value in row) for row in values), values


def expected(image: np.ndarray, weight: np.ndarray, pad: str) -> np.ndarray:
    """By SciPy, in float64. Of an even side, the weight before the middle lies on the pixel."""
    origin = [-1 if side % 2 == 0 else 0 for side in weight.shape]
    mode = MODES.get(pad, "constant")
    channels = [
        ndimage.correlate(image[..., c] / 255, weight, mode=mode, origin=origin)
        for c in range(image.shape[2])
    ]
    whole = np.stack(channels, -1)
    if pad != "valid":
        return whole
    before = [(side - 1) // 2 for side in weight.shape]
    high, wide = (image.shape[axis] - weight.shape[axis] + 1 for axis in (0, 1))
    return whole[before[0] : before[0] + high, before[1] : before[1] + wide]


@pytest.mark.parametrize("pad", [*MODES, "valid"])
@pytest.mark.parametrize("size", [(3, 3), (1, 3), (2, 2), (4, 5), (7, 6), (9, 12), (1, 1)])
def test_agrees_with_scipy(pad: str, size: tuple[int, int]) -> None:
    text, weight = matrix(*size)
    for stride in (1, 2, 3):
        for image in (pixels(), pixels(channels=1)):
            (found,) = answers(image, [text], pad=pad, stride=stride)
            wanted = expected(image, weight, pad)[::stride, ::stride]
            np.testing.assert_allclose(found.values, wanted, atol=2e-5)


@pytest.mark.parametrize("name", [*KERNELS, *ALIASES])
def test_every_name_filters(name: str) -> None:
    (found,) = answers(pixels(), [name])
    weight = named_kernel(name).double().numpy()
    np.testing.assert_allclose(found.values, expected(pixels(), weight, "zeros"), atol=1e-5)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths")
@pytest.mark.parametrize("pad", MODES)
@pytest.mark.parametrize("size", [(3, 3), (5, 1), (2, 4)])
def test_is_what_the_layer_of_a_network_computes(pad: str, size: tuple[int, int]) -> None:
    layer = nn.Conv2d(3, 3, size, padding="same", padding_mode=pad, groups=3, bias=False)
    weight = torch.randn(size, generator=torch.Generator().manual_seed(0))
    nn.init.zeros_(layer.weight).data += weight
    x = torch.randn(2, 3, 7, 8, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(layer(x), correlate(x, weight, pad=pad))


def test_the_lecture_s_example() -> None:
    x = torch.tensor([[1.0, 2, 3], [3, 4, 5], [1, 0, 2]])[None, None]
    found = correlate(x, kernel("0 1; 1 -1").weight, pad="valid")
    assert found.squeeze().tolist() == [[1, 2], [5, 3]]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("0 -1 0; -1 5 -1; 0 -1 0", [[0, -1, 0], [-1, 5, -1], [0, -1, 0]]),
        ("1/9 1/9; −2/3 .5", [[1 / 9, 1 / 9], [-2 / 3, 0.5]]),
        ("1, 2,3;4 5  6;", [[1, 2, 3], [4, 5, 6]]),
        ("1e-2\n+3.", [[0.01], [3]]),
        ("7", [[7]]),
    ],
)
def test_matrices_are_read(text: str, values: list[list[float]]) -> None:
    np.testing.assert_allclose(kernel(text).weight.numpy(), values, rtol=1e-6)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("sobel-tip", "did you mean 'sobel-top'"),
        ("gausian", "did you mean 'gaussian'"),
        ("1 2 3; 4 5", "row 2 of the kernel has 2 .* row 1 has 3"),
        ("1 2; 3 x", "row 2 of the kernel: 'x' is no number"),
        ("1/0 2", "'1/0' is no number"),
        ("nan 1", "'nan' is no number"),
        (";;", "no rows"),
        ("1e99", "out of range"),
        (" ".join("1" * 32), "at most 31×31, got 1×32"),
        (";".join("1" * 32), "at most 31×31, got 32×1"),
        ("", "no kernel is called ''"),
    ],
)
def test_senseless_kernels_are_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kernel(text)


def test_names_may_have_blanks_and_capitals() -> None:
    assert kernel("Sobel top").weight.equal(named_kernel("sobel-up"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pad": "reflect"}, "needs sides of at least 5 pixels, the picture has 4×12"),
        ({"pad": "valid"}, "needs sides of at least 9 pixels"),
        ({"pad": "mirror"}, "no padding is called 'mirror'"),
        ({"stride": 0}, "stride is at least 1"),
    ],
)
def test_what_does_not_fit_is_refused(options: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        answers(pixels(4), [matrix(9, 3)[0]], **options)
    with pytest.raises(ConfigError, match="which kernel"):
        answers(pixels(), [])


def test_padding_reaches_as_far_as_it_may() -> None:
    for pad, side in (("reflect", 4), ("circular", 3), ("valid", 7), ("replicate", 1)):
        text, weight = matrix(7, 7)
        image = pixels(side, side)
        (found,) = answers(image, [text], pad=pad)
        assert found.values.shape == ((1, 1, 3) if pad == "valid" else image.shape)
        if pad != "circular":
            np.testing.assert_allclose(found.values, expected(image, weight, pad), atol=2e-5)
        if pad not in ("replicate",):
            with pytest.raises(ConfigError, match="needs sides"):
                answers(pixels(side - 1, side), [text], pad=pad)


def test_blurs_and_sharpening_are_pictures_and_edges_are_maps_around_zero() -> None:
    signed = {one.kernel.name: one.signed for one in answers(pixels(), list(KERNELS))}
    pictures = {"identity", "mean", "gaussian", "sharpen"}
    for name, found in signed.items():
        assert found == (name not in pictures and not name.startswith("shift")), name
    assert answers(pixels(), ["0 1 -0.5"])[0].signed  # darker than before, so no picture


def test_what_is_drawn_is_the_answer() -> None:
    image = pixels()
    sobel, sharp, same = answers(image, ["sobel-top", "sharpen", "identity"])
    grey = image.astype(float) @ (0.299, 0.587, 0.114)
    inside = (slice(1, -1), slice(1, -1))
    drawn = sobel.shown()
    np.testing.assert_allclose(
        drawn.values[inside] * 255, -ndimage.sobel(grey, axis=0)[inside], atol=0.05
    )
    assert drawn.values.min() < 0 < drawn.values.max()
    picture = sharp.shown()
    assert picture.values.dtype == np.uint8
    beyond = np.mean((sharp.values < 0) | (sharp.values > 1))
    assert 0 < beyond < 1
    assert f"{100 * beyond:.2g} % of it cut off" in picture.remark
    np.testing.assert_array_equal(same.shown().values, image)
    assert "cut off" not in same.shown().remark


def written(drawing: object) -> list[str]:
    """Every text in a figure."""
    return [text.get_text() for text in drawing.texts]  # type: ignore[attr-defined]


def test_the_figure_shows_the_original_and_each_matrix() -> None:
    image = pixels()
    drawing = figure(image, "mean", "outline", "1/2 -1/2", "shift-up", matrix(9, 9)[0])
    shown = [one.get_images()[0] for one in drawing.axes if one.get_images()]
    np.testing.assert_array_equal(shown[0].get_array(), image)
    texts = written(drawing)
    assert texts[0] == "original"
    for name in ("mean", "outline", "1×2", "shift-up", "9×9", "9×12, colour"):
        assert name in texts, name
    assert texts.count("1/9 ·") == 1  # the divisor of the mean, beside its nine ones
    assert texts.count("8") == 1
    assert texts.count("−1") == 8
    assert {"1/2", "−1/2"} <= set(texts)
    signed = [one for one in shown if one.norm.vmin is not None and one.norm.vmin < 0]
    assert signed
    assert all(one.norm.vmin == -one.norm.vmax for one in signed)
    large = [one for one in shown if one.get_array().shape == (9, 9)]
    np.testing.assert_allclose(large[0].get_array(), matrix(9, 9)[1])


def test_the_figure_takes_files_grey_pictures_and_strides(tmp_path: Path) -> None:
    Image.fromarray(pixels()).save(tmp_path / "a.png")
    for image in (tmp_path / "a.png", pixels()):
        assert "9×12, grey" in written(figure(image, "outline", grey=True))
    assert "3×4" in written(figure(pixels(9, 12, 1)[..., 0], "mean", stride=3))
    assert figure(pixels(1, 40), "mean") is not None
    assert figure(pixels(60, 4), "mean") is not None
    with pytest.raises(ConfigError, match="uint8"):
        figure(pixels() / 255, "mean")


# The command line ---------------------------------------------------------------------------------


@pytest.fixture
def cat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A picture, from a current directory with nothing in it."""
    Image.fromarray(pixels()).save(tmp_path / "cat.png")
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "cat.png"


def run(*argv: object) -> Result:
    return CliRunner().invoke(cli, ["filter", *map(str, argv)])


def test_the_command_draws_and_counts(cat: Path, tmp_path: Path) -> None:
    said = run(cat, "--kernel", "sobel-top", "--kernel", "-1 0 1", "--pad", "valid", "--json")
    assert said.exit_code == 0, said.output
    found = json.loads(said.stdout)
    assert found["path"] == str(cat)
    assert found["shape"] == [3, 9, 12]
    assert found["out"] == "cat-filtered.png"
    assert [one["name"] for one in found["kernels"]] == ["sobel-top", "1×3"]
    assert [one["shape"] for one in found["kernels"]] == [[3, 7, 10], [3, 9, 10]]
    for one in found["kernels"]:
        wanted = expected(pixels(), np.array(one["matrix"]), "valid")
        for key in ("min", "max", "mean"):
            assert one[key] == pytest.approx(getattr(wanted, key)(), abs=1e-5)
    with Image.open(tmp_path / "here" / "cat-filtered.png") as drawn:
        assert drawn.width > 600
        assert len(drawn.getcolors(10**6) or ()) > 100


def test_nothing_is_overwritten_unless_it_is_named(cat: Path, tmp_path: Path) -> None:
    for name in ("cat-filtered.png", "cat-filtered-2.png"):
        said = run(cat, "--kernel", "mean")
        assert said.exit_code == 0, said.output
        assert f"drawn: {name}" in said.stdout
        assert "3×9×12" in said.stdout
        assert (tmp_path / "here" / name).is_file()
    for _ in range(2):
        assert run(cat, "--kernel", "mean", "--out", "sub/a.svg").exit_code == 0
    assert (tmp_path / "here" / "sub" / "a.svg").read_text().count("<svg") == 1


def test_the_picture_itself_is_never_overwritten(cat: Path, tmp_path: Path) -> None:
    """By whatever name: a link, a way round."""
    before = cat.read_bytes()
    (tmp_path / "link.png").symlink_to(cat)
    for image, out in (
        (cat, cat),
        (cat, "../cat.png"),
        (cat, tmp_path / "link.png"),
        (tmp_path / "link.png", cat),
    ):
        said = run(image, "--kernel", "mean", "--out", out)
        assert isinstance(said.exception, ConfigError)
        assert "is the picture itself" in said.exception.message
        assert "name another file" in said.exception.hint
    assert cat.read_bytes() == before
    assert (tmp_path / "link.png").is_symlink()
    (tmp_path / "copy.png").write_bytes(before)
    assert run(cat, "--kernel", "mean", "--out", tmp_path / "copy.png").exit_code == 0
    assert cat.read_bytes() == before


@pytest.mark.parametrize(
    ("argv", "kind", "message"),
    [
        (("--kernel", "sobel-tip"), ConfigError, "did you mean 'sobel-top'"),
        (("--kernel", "1 2; 3"), ConfigError, "row 2"),
        ((), ConfigError, "which kernel"),
        (("--kernel", "mean", "--out", "a.jpg"), ConfigError, "neither .svg nor .png"),
    ],
)
def test_errors_teach(cat: Path, argv: tuple, kind: type, message: str) -> None:
    said = run(cat, *argv)
    assert isinstance(said.exception, kind)
    assert message in str(said.exception)


def test_no_picture(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_text("no picture")
    (tmp_path / "b.png").write_bytes(b"")
    for name, message in (
        ("missing.png", "expected a file, found nothing"),
        ("a.png", "expected JPEG, PNG"),
        ("b.png", "empty file"),
    ):
        said = run(tmp_path / name, "--kernel", "mean")
        assert isinstance(said.exception, DataError)
        assert message in str(said.exception)
        assert isinstance(said.exception, NeocogError)
    assert not list(tmp_path.glob("*filtered*"))
