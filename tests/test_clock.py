"""Replaying operations, profiles and what they predict. Nothing here depends on how fast it is."""

import itertools
import json
import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from neocog.analysis import clock
from neocog.analysis.profile import Profile, bound, estimate, measure_profile, predicted
from neocog.analysis.step import Step, measure_step, usual_loss, usual_optimizer
from neocog.analysis.works import Shape, Work
from neocog.models.catalog import build

CPU = torch.device("cpu")
FLAT = Profile(
    device="cpu",
    threads=1,
    precision="fp32",
    channels_last=False,
    arithmetic={
        "spatial forward": ((16.0, 1e9), (64.0, 4e9)),
        "spatial backward": ((16.0, 1e9),),
        "products": ((16.0, 1e9),),
    },
    bandwidth={"": ((1e6, 1e9),), "relu": ((1e4, 4e9), (1e6, 1e9))},
    call=1e-5,
    framework={"forward": 1e-5, "backward": 2e-5, "optimizer": 0.0},
)
"""Round numbers."""


def shape(*sizes: int) -> Shape:
    strides = [math.prod(sizes[place + 1 :]) for place in range(len(sizes))]
    return Shape(sizes, tuple(strides), "float32", 4 * math.prod(sizes))


def relu(count: int) -> Work:
    return Work("relu", "default", (shape(count),), (), (shape(count),), False)


def convolution(width: int, side: int) -> Work:
    maps, kernel = shape(1, width, side, side), shape(width, width, 3, 3)
    rest = (None, (1, 1), (1, 1), (1, 1), False, (0, 0), 1)
    return Work("convolution", "default", (maps, kernel, *rest), (), (maps,), False)


def network(name: str) -> nn.Module:
    return build(name, channels=3, size=(32, 32), outputs=10, args={})


def planned(name: str, batch: int = 2, precision: str = "fp32") -> Step:
    return measure_step(
        network(name),
        (batch, 3, 32, 32),
        precision=precision,
        channels_last=precision == "bf16",
    )


@pytest.mark.parametrize(
    ("name", "precision"),
    [("lenet5", "fp32"), ("cnn", "bf16"), ("efficientnet_b0", "bf16"), ("convnext_tiny", "fp32")],
)
def test_every_operation_of_a_step_can_be_replayed(name: str, precision: str) -> None:
    step = planned(name, precision=precision)
    works = {work.op: work for _, work in step.work}.values()  # one of each name
    found = clock.replay(works, CPU, budget=0.0)
    assert not found.failed
    timed = {work.op for work in found.seconds}
    assert {"convolution", "convolution_backward", "nll_loss_forward", "add_"} <= timed
    assert all(0 < one < 10 for one in found.seconds.values())


class Recorder(TorchDispatchMode):
    """Shapes and strides of what runs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[tuple[object, ...]] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        answer = func(*args, **(kwargs or {}))
        outputs = answer if isinstance(answer, tuple | list) else [answer]
        given = [(tuple(a.shape), a.stride(), a.dtype) for a in args if isinstance(a, Tensor)]
        made = [(tuple(a.shape), a.stride(), a.dtype) for a in outputs if isinstance(a, Tensor)]
        self.seen.append((func._schema.name, tuple(given), tuple(made)))
        return answer


def test_what_is_replayed_is_laid_out_as_in_a_real_step() -> None:
    step = planned("cnn", precision="bf16")
    net = network("cnn").train().to(memory_format=torch.channels_last)
    images = torch.zeros(2, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    rule = usual_optimizer(net.parameters())
    real, again = Recorder(), Recorder()
    with real:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            answer = net(images)
        usual_loss(answer).backward()  # type: ignore[no-untyped-call]
        rule.step()
    with again:
        for work in {
            work for _, work in step.work if work.op.startswith(("conv", "native", "max"))
        }:
            clock.seconds(work, CPU, budget=0.0)
    names = ("aten::convolution", "aten::native_batch_norm", "aten::max_pool2d_with_indices")
    for name in (*names, *(f"{one}_backward" for one in names)):
        expected = {one for one in real.seen if one[0] == name}
        assert expected
        assert expected == {one for one in again.seen if one[0] == name}


def test_what_cannot_be_replayed_is_named_and_estimated() -> None:
    odd = Work("no_such_operation", "default", (shape(64),), (), (shape(64),), False)
    values = Work("nonzero", "sideways", (shape(64),), (), (), False)
    found = clock.replay([odd, values, relu(64)], CPU, budget=0.0)
    assert set(found.failed) == {"no_such_operation", "nonzero"}
    assert set(found.seconds) == {relu(64)}
    assert clock.seconds(odd, CPU) is None
    step = replace(planned("lenet5"), work={("forward", odd): 2, ("forward", relu(64)): 1})
    guess = estimate(step, FLAT, found.seconds)
    by_hand = 2 * predicted(odd, FLAT) + found.seconds[relu(64)] + 3 * 1e-5
    assert guess.value == pytest.approx(by_hand)
    assert guess.estimated == pytest.approx(2 * predicted(odd, FLAT) / by_hand)


def test_replaying_leaves_torchs_generator_and_gradients_alone() -> None:
    drawn = Work("bernoulli_", "float", (shape(8), 0.5), (), (shape(8),), False)
    before = torch.random.get_rng_state()
    assert clock.seconds(drawn, CPU) is not None
    assert torch.equal(before, torch.random.get_rng_state())
    assert torch.is_grad_enabled()


def test_an_operation_takes_its_call_and_the_longer_of_arithmetic_and_moving() -> None:
    # 8 MB at 1 GB/s, and 10 µs.
    assert predicted(relu(1_000_000), FLAT) == pytest.approx(8e-3 + 1e-5)
    # 2·10⁴ … 10⁵ bytes lie halfway between 10⁴ and 10⁶ in logarithms: 2 GB/s.
    assert predicted(relu(12_500), FLAT) == pytest.approx(1e5 / 2e9 + 1e-5)
    # 32 channels lie halfway between 16 and 64: 2·10⁹ a second.
    work = convolution(32, 32)
    assert work.macs == 32 * 32 * 32 * 32 * 9
    assert predicted(work, FLAT) == pytest.approx(work.macs / 2e9 + 1e-5)


def test_what_bounds_an_operation() -> None:
    assert bound(relu(100), FLAT) == "overhead"
    assert bound(relu(1_000_000), FLAT) == "bandwidth"
    assert bound(convolution(32, 32), FLAT) == "arithmetic"
    fast = replace(FLAT, arithmetic={"spatial forward": ((16.0, 1e15),)})
    assert bound(convolution(32, 32), fast) == "bandwidth"
    slow = replace(FLAT, call=1.0)
    assert bound(convolution(32, 32), slow) == "overhead"


@pytest.mark.parametrize("name", ["lenet5", "resnet18", "mlp"])
def test_a_larger_batch_never_takes_less_time(name: str) -> None:
    guesses = [estimate(planned(name, batch), FLAT) for batch in (1, 2, 8, 64)]
    for smaller, larger in itertools.pairwise(guesses):
        assert smaller.value < larger.value
        assert smaller.forward < larger.forward
    for one in guesses:
        assert one.low <= one.value <= one.high
        assert one.forward < one.value
        assert one.estimated <= 1


def test_a_measured_profile_survives_json_and_predicts() -> None:
    threads = torch.get_num_threads()
    profile = measure_profile(CPU, batch=1)
    assert Profile.from_dict(json.loads(json.dumps(profile.to_dict()))) == profile
    assert profile.threads == threads
    assert profile.call > 0
    assert {"forward", "backward", "optimizer"} == set(profile.framework)
    rates = [
        b for one in (profile.arithmetic, profile.bandwidth) for c in one.values() for _, b in c
    ]
    assert all(math.isfinite(one) and one > 0 for one in rates)
    for curves in (profile.arithmetic, profile.bandwidth):
        for curve in curves.values():
            sizes = [size for size, _ in curve]
            assert sizes == sorted(set(sizes))
    step = planned("resnet18")
    guess = estimate(step, profile)
    assert guess.estimated > 0.3
    assert 0 < guess.low <= guess.value <= guess.high < 600
    measured = clock.replay([work for _, work in step.work], CPU, budget=0.0).seconds
    better = estimate(step, profile, measured)
    assert better.estimated == 0
    assert better.high / better.low < guess.high / guess.low


def test_measuring_a_profile_leaves_torchs_generator_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    devices: list[object] = []

    def watched(*args: object, **how: object) -> Step:
        devices.append(how.get("device"))
        return measure_step(*args, **how)  # type: ignore[arg-type]

    monkeypatch.setattr("neocog.analysis.profile.measure_step", watched)
    monkeypatch.setattr("neocog.analysis.profile._BUDGET", 0.0)
    before = torch.random.get_rng_state()
    measure_profile(CPU, batch=1)
    assert torch.equal(before, torch.random.get_rng_state())
    assert set(devices) == {"cpu"}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("arithmetic",), {}),
        (("arithmetic", "products"), []),
        (("arithmetic", "products"), [[16.0, 0.0]]),
        (("arithmetic", "products"), [[16.0, float("nan")]]),
        (("arithmetic", "products"), [[16.0, "fast"]]),
        (("arithmetic", "products"), [[64.0, 1e9], [16.0, 1e9]]),
        (("bandwidth",), {"relu": [[1e6, 1e9]]}),
        (("bandwidth", ""), []),
        (("bandwidth", ""), [[1e6, float("inf")]]),
        (("call",), 0.0),
        (("call",), None),
        (("framework",), {"forward": 1e-5}),
        (("framework", "backward"), -1e-5),
        (("framework", "backward"), float("inf")),
    ],
)
def test_a_damaged_profile_is_refused(place: tuple[str, ...], value: object) -> None:
    kept = json.loads(json.dumps(FLAT.to_dict()))
    assert Profile.from_dict(kept) == FLAT
    inner = kept
    for name in place[:-1]:
        inner = inner[name]
    inner[place[-1]] = value
    with pytest.raises(ValueError):
        Profile.from_dict(kept)


def test_a_custom_operation_costs_the_bytes_that_it_moves() -> None:
    foreign = replace(relu(1_000_000), op="somewhere::fused_thing")
    assert predicted(foreign, FLAT) == pytest.approx(8e-3 + 1e-5)
    assert bound(foreign, FLAT) == "bandwidth"
    assert predicted(replace(foreign, op="profiler::_record_function_enter_new"), FLAT) == 0


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_operations_can_be_timed_on_a_gpu() -> None:
    found = clock.replay([work for _, work in planned("lenet5").work], torch.device("cuda"))
    assert not found.failed
    assert all(0 < one < 1 for one in found.seconds.values())
