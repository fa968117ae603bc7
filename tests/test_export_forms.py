"""OpenVINO, torch.export, Triton and the container: what is made of an exported network."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import xml.etree.ElementTree as ET
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from google.protobuf import text_format
from torch import Tensor, nn

import exported
import neocog
import small_exports
from neocog.errors import ConfigError, RunError
from neocog.export import openvino, torch_program, triton
from neocog.export.program import METADATA
from neocog.layers import Predictor
from neocog.runtime.openvino_library import openvino_core

ROOT = Path(__file__).parent.parent
SHAPES = [(1, 8, 8), (3, 8, 8), (5, 16, 24), (2, 31, 9)]


@pytest.fixture(scope="module")
def digits() -> small_exports.Digits:
    return small_exports.trained()


@pytest.fixture(scope="module")
def exact(digits: small_exports.Digits, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_exports.saved(digits.predictor, tmp_path_factory.mktemp("exact") / "fp32.onnx")


@pytest.fixture(scope="module")
def written(exact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ir") / "digits.xml"
    openvino.write(exact, out, small_exports.metadata())
    return out


def pictures(shape: tuple[int, int, int]) -> np.ndarray[Any, Any]:
    size = (shape[0], 1, *shape[1:])
    return np.random.default_rng(1).integers(0, 256, size, dtype=np.uint8)


def compiled(path: Path) -> Any:
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    core = openvino_core()
    return core.compile_model(core.read_model(path), "CPU", settings)


class TestOpenVino:
    def test_it_answers_as_the_run(self, digits: small_exports.Digits, written: Path) -> None:
        model = compiled(written)
        for shape in SHAPES:
            images = pictures(shape)
            with torch.inference_mode():
                expected = digits.predictor(torch.from_numpy(images)).numpy()
            assert np.abs(model([images])[0] - expected).max() < 1e-5

    def test_the_metadata_come_back_whole(self, written: Path) -> None:
        expected = json.loads(small_exports.metadata())
        model = openvino_core().read_model(written)
        assert json.loads(model.get_rt_info(["neocog"]).value) == expected
        # and for a parser that turns line ends of attributes into spaces, as XML says
        found = ET.parse(written).getroot().find("rt_info/neocog")
        assert found is not None
        assert json.loads(found.attrib["value"]) == expected
        assert sorted(path.name for path in written.parent.iterdir()) == [
            "digits.bin",
            "digits.xml",
        ]

    def test_half_precision_is_half_as_large(
        self, digits: small_exports.Digits, exact: Path, written: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "half.xml"
        openvino.write(exact, out, "{}", half=True)
        sizes = [path.with_suffix(".bin").stat().st_size for path in (out, written)]
        assert sizes[0] < 0.55 * sizes[1]
        with torch.inference_mode():
            expected = digits.predictor(torch.from_numpy(digits.images)).numpy()
        assert np.abs(compiled(out)([digits.images])[0] - expected).max() < 0.02

    def test_a_write_that_fails_leaves_no_pair(
        self, exact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        out = tmp_path / "net.xml"
        openvino.write(exact, out, "{}")

        def full(*_: object, **__: object) -> None:
            raise RunError("the disk is full")

        monkeypatch.setattr(openvino, "write_atomic", full)
        with pytest.raises(RunError, match="full"):
            openvino.write(exact, out, "{}")
        assert [path.name for path in tmp_path.iterdir()] == ["net.bin"]

    def test_what_it_refuses(self, exact: Path, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match=r"\.xml"):
            openvino.write(exact, tmp_path / "net.bin", "{}")
        broken = tmp_path / "broken.onnx"
        broken.write_bytes(b"no network")
        with pytest.raises(RunError, match=r"broken\.onnx"):
            openvino.write(broken, tmp_path / "net.xml", "{}")
        assert [path.name for path in tmp_path.iterdir()] == ["broken.onnx"]

    def test_it_sends_and_writes_nothing_of_its_own(self, exact: Path, tmp_path: Path) -> None:
        """Without the library's own telemetry, which a mere import would send."""
        script = f"""
import sys
from pathlib import Path
home, out, seen = Path({str(tmp_path / "home")!r}), Path({str(tmp_path / "net.xml")!r}), []
WATCHED = ("socket.", "http.", "urllib.", "ssl.", "subprocess.", "os.fork", "os.exec", "os.spawn")
def hook(event, values):
    if event.startswith(WATCHED) or event == "os.posix_spawn":
        seen.append(event)
sys.addaudithook(hook)
from neocog.export import openvino
from neocog.runtime.openvino_library import openvino_core
openvino.write(Path({str(exact)!r}), out, "{{}}")
core = openvino_core()
core.compile_model(core.read_model(out), "CPU")
import openvino.tools.ovc.convert_impl as converter
print(converter.tm.__name__, seen, list(home.rglob("*")))
import openvino_telemetry
print(openvino_telemetry.__name__)
import socket
socket.socket().close()
print(seen)
"""
        (tmp_path / "home").mkdir()
        environment = {name: text for name, text in os.environ.items() if name != "CI"}
        result = subprocess.run(
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=False,
            env=environment | {"HOME": str(tmp_path / "home")},
        )
        assert result.stdout.splitlines() == [
            "openvino.tools.ovc.telemetry_stub [] []",
            "openvino_telemetry",  # there for others
            "['socket.__new__']",  # the hook sees what it is for
        ], result.stderr

    def test_without_the_extra(
        self, exact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "openvino", None)
        with pytest.raises(ConfigError) as caught:
            openvino.write(exact, tmp_path / "net.xml", "{}")
        assert caught.value.hint == 'pip install "neocog[openvino]"'


class Fickle(nn.Module):
    """Looks at its numbers to decide what to do."""

    def forward(self, pictures: Tensor) -> Tensor:
        found: Tensor = pictures.mean((1, 2, 3))[:, None]
        return found if found.sum() > 0 else -found


class TestTorchProgram:
    def test_it_answers_as_the_run(self, digits: small_exports.Digits, tmp_path: Path) -> None:
        out = tmp_path / "digits.pt2"
        samples = torch.from_numpy(digits.seen[:2])
        torch_program.write(digits.predictor, samples, out, small_exports.metadata())
        answer = torch_program.reread(out)
        for shape in SHAPES:
            images = pictures(shape)
            with torch.inference_mode():
                expected = digits.predictor(torch.from_numpy(images)).numpy()
            assert np.abs(answer(images) - expected).max() < 1e-6
        assert [path.name for path in tmp_path.iterdir()] == ["digits.pt2"]
        with zipfile.ZipFile(out) as archive:
            (name,) = (one for one in archive.namelist() if one.endswith(METADATA))
            assert archive.read(name).decode() == small_exports.metadata()
            contents = [archive.read(one) for one in archive.namelist()]
        # nobody's pictures are handed out with it
        assert not any(digits.seen[row].tobytes() in one for one in contents for row in (0, 1))

    def test_a_network_that_looks_at_numbers_is_refused(self, tmp_path: Path) -> None:
        predictor = Predictor(Fickle(), small_exports.SPEC, lambda z: z).eval()
        samples = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
        with pytest.raises(RunError, match="cannot trace"):
            torch_program.write(predictor, samples, tmp_path / "out.pt2", "{}")
        assert not list(tmp_path.iterdir())

    def test_nothing_else_reads_such_files(self) -> None:
        source = Path(neocog.__file__).parent
        files = {path: path.read_text(encoding="utf-8") for path in source.rglob("*.py")}
        readers = {
            path.relative_to(source).as_posix()
            for path, text in files.items()
            if "export" in text and "load" in text
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.Attribute) and node.attr == "load"
            if ast.unparse(node).endswith("export.load")
        }
        assert readers == {"export/torch_program.py"}


def read_config(path: Path) -> Any:
    """By protobuf and Triton's own description of the message."""
    from tritonclient.grpc import model_config_pb2

    return text_format.Parse(path.read_text(encoding="utf-8"), model_config_pb2.ModelConfig())


class TestTriton:
    @pytest.fixture
    def home(self, exact: Path, tmp_path: Path) -> Path:
        written = triton.write(tmp_path, exact, small_exports.described(), name="digits", batch=32)
        home = tmp_path / "digits"
        assert set(written) == {path for path in home.rglob("*") if path.is_file()}
        return home

    def test_the_configuration_is_what_triton_expects(self, home: Path) -> None:
        from tritonclient.grpc import model_config_pb2 as its

        config = read_config(home / "config.pbtxt")
        assert (config.name, config.backend, config.max_batch_size) == ("digits", "onnxruntime", 32)
        (taken,), (given,) = config.input, config.output
        assert (taken.name, taken.data_type) == ("images", its.TYPE_UINT8)
        assert list(taken.dims) == [1, -1, -1]
        assert (given.name, given.data_type) == ("probabilities", its.TYPE_FP32)
        assert list(given.dims) == [10]
        assert given.label_filename == "labels.txt"
        batching = config.dynamic_batching
        assert list(batching.preferred_batch_size) == [8, 16, 32]
        assert batching.max_queue_delay_microseconds == 2000
        assert config.version_policy.latest.num_versions == 1
        classes = json.loads(config.parameters["neocog_classes"].string_value)
        assert tuple(classes) == small_exports.CLASSES
        assert config.parameters["neocog_task"].string_value == "classify"

    def test_one_line_a_class_whatever_their_names_hold(self, home: Path) -> None:
        text = (home / "labels.txt").read_bytes().decode()
        lines = text.removesuffix("\n").split("\n")
        assert len(lines) == len(small_exports.CLASSES) == len(text.splitlines())
        assert lines[1] == "one\\ntwo"
        assert lines[3] == "vier 四"
        assert lines[9] == "\\x00nine"

    def test_the_network_inside_answers(self, digits: small_exports.Digits, home: Path) -> None:
        session = onnxruntime.InferenceSession(home / "1" / "model.onnx")
        found = session.run(None, {"images": digits.images[:20]})[0]
        with torch.inference_mode():
            expected = digits.predictor(torch.from_numpy(digits.images[:20])).numpy()
        assert np.abs(found - expected).max() < 1e-5

    def test_masks_have_sides_of_any_length_and_no_labels(self, tmp_path: Path) -> None:
        from tritonclient.grpc import model_config_pb2 as its

        path = tmp_path / "masks.onnx"
        path.write_bytes(exported.labelled(exported.model()))
        triton.write(tmp_path / "models", path, exported.described(), name="masks", batch=1)
        config = read_config(tmp_path / "models" / "masks" / "config.pbtxt")
        assert [(one.name, one.data_type, list(one.dims)) for one in config.output] == [
            ("mask", its.TYPE_UINT8, [-1, -1]),
            ("probabilities", its.TYPE_FP32, [3, -1, -1]),
        ]
        assert not any(one.label_filename for one in config.output)
        assert list(config.dynamic_batching.preferred_batch_size) == [1]

    def test_signals_have_a_fixed_length_and_their_type(self, tmp_path: Path) -> None:
        from onnx import TensorProto, helper
        from tritonclient.grpc import model_config_pb2 as its

        graph = helper.make_graph(
            [helper.make_node("Cast", ["samples"], ["numbers"], to=TensorProto.FLOAT)],
            "g",
            [helper.make_tensor_value_info("samples", TensorProto.INT16, ["batch", 2, 100])],
            [helper.make_tensor_value_info("numbers", TensorProto.FLOAT, ["batch", 2, 100])],
        )
        onnx.save(helper.make_model(graph), tmp_path / "sound.onnx")
        described = small_exports.described()
        triton.write(tmp_path, tmp_path / "sound.onnx", described, name="sound")
        (taken,) = read_config(tmp_path / "sound" / "config.pbtxt").input
        assert (taken.data_type, list(taken.dims)) == (its.TYPE_INT16, [2, 100])

    def test_ours_is_written_over_and_others_stay(self, exact: Path, home: Path) -> None:
        described, folder = small_exports.described(), home.parent
        triton.write(folder, exact, described, name="digits", batch=8)
        assert read_config(home / "config.pbtxt").max_batch_size == 8
        (home / "2").mkdir()
        (home / "2" / "model.onnx").write_bytes(b"another version")
        with pytest.raises(RunError, match="did not write"):
            triton.write(folder, exact, described, name="digits")
        assert read_config(home / "config.pbtxt").max_batch_size == 8
        foreign = folder / "foreign"
        foreign.mkdir()
        triton.write(folder, exact, described, name="foreign")  # it was empty
        (foreign / "config.pbtxt").write_text('name: "foreign"')
        with pytest.raises(RunError, match="did not write"):
            triton.write(folder, exact, described, name="foreign")
        (folder / "link").symlink_to(home, target_is_directory=True)
        (folder / "file").write_text("x")
        for name in ("link", "file"):
            with pytest.raises(RunError, match="did not write"):
                triton.write(folder, exact, described, name=name)

    @pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a\nb", "é", "x" * 129])
    def test_names_that_lead_elsewhere(self, exact: Path, tmp_path: Path, name: str) -> None:
        with pytest.raises(ConfigError, match="name"):
            triton.write(tmp_path, exact, small_exports.described(), name=name)
        assert not list(tmp_path.iterdir())


def instructions() -> list[tuple[str, str]]:
    """Word and rest of each instruction of the Dockerfile, continued lines joined."""
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    text = re.sub(r"\\\n\s*", "", "\n".join(t for t in text.split("\n") if not t.startswith("#")))
    return [(word, rest) for word, _, rest in (t.partition(" ") for t in text.split("\n")) if word]


class TestDockerfile:
    def test_everything_it_copies_is_there_and_sent(self) -> None:
        sent = {
            line[1:]
            for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
            if line.startswith("!")
        }
        copied = {
            name
            for word, rest in instructions()
            if word == "COPY" and not rest.startswith("--from")
            for name in rest.split()[:-1]
        }
        assert copied == sent
        assert all((ROOT / name).exists() for name in copied)

    def test_it_does_not_run_as_root(self) -> None:
        words = instructions()
        last = max(i for i, (word, _) in enumerate(words) if word == "FROM")
        users = [rest for word, rest in words[last:] if word == "USER"]
        assert users
        assert not re.match(r"(0|root)\b", users[-1])
        after = [word for word, _ in words[words.index(("USER", users[-1])) :]]
        assert not {"RUN", "COPY", "ADD"} & set(after)

    def test_versions_are_the_tested_ones(self) -> None:
        pins = [rest for word, rest in instructions() if word == "RUN" and "pip install" in rest]
        assert pins
        assert all("--constraint constraints.txt" in rest for rest in pins)

    def test_the_health_check_is_python_that_asks_the_server(self) -> None:
        (check,) = (rest for word, rest in instructions() if word == "HEALTHCHECK")
        command = json.loads(check[check.index("[") :])
        assert command[:2] == ["python", "-c"]
        ast.parse(command[2])
        assert "http://127.0.0.1:8000/v2/health/live" in command[2]

    def test_the_command_line_is_one_that_neocog_takes(self) -> None:
        from click.testing import CliRunner

        from neocog.cli import cli

        parts = {word: rest for word, rest in instructions() if word in ("ENTRYPOINT", "CMD")}
        entry, options = json.loads(parts["ENTRYPOINT"]), json.loads(parts["CMD"])
        assert entry == ["neocog", "serve"]
        told = CliRunner().invoke(cli, ["serve", "--help"])
        assert told.exit_code == 0
        named = [one for one in options if one.startswith("--")]
        assert set(named) == {"--host", "--port"}
        assert all(re.search(rf"{one}\b", told.output) for one in named)
        assert ("EXPOSE", options[options.index("--port") + 1]) in instructions()
