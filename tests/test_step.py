"""Memory and work of planned steps against what real steps on a processor hold and run."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from neocog.analysis.step import measure_step, measure_use, usual_loss, usual_optimizer
from neocog.analysis.summary import node_macs
from neocog.analysis.trace import trace
from neocog.models.catalog import build


class Functional(nn.Module):
    """Functions that belong to no layer of their own."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 16, 3, padding=1)
        self.second = nn.Conv2d(16, 32, 3, 2, 1)
        self.norm = nn.BatchNorm2d(32)
        self.out = nn.Linear(32, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.second(F.silu(self.first(x)))))
        answer: Tensor = self.out(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return answer


class Shared(nn.Module):
    """One layer three times, of fewer channels than a block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 1)
        self.again = nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 10, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for _ in range(3):
            x = torch.relu(self.again(x))
        answer: Tensor = self.out(x).mean((2, 3))
        return answer


class Attending(nn.Module):
    """B×L×64 through attention, without or with a feed-forward part."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.layer: nn.Module = (
            nn.TransformerEncoderLayer(64, 4, 128, dropout=0.0, batch_first=True)
            if whole
            else nn.MultiheadAttention(64, 4, batch_first=True)
        )
        self.out = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x) if self.whole else x + self.layer(x, x, x, need_weights=False)[0]
        answer: Tensor = self.out(y.mean(1))
        return answer


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(500, 256)
        self.out = nn.Linear(256, 10)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(torch.tanh(self.table(x)).mean(1))
        return answer


class Recurrent(nn.Module):
    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.layer = kind(8, 16, batch_first=True)
        self.out = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.out(self.layer(x)[0][:, -1])
        return answer


def head(width: int) -> list[nn.Module]:
    return [nn.Flatten(), nn.Linear(width, 10)]


def resnet() -> nn.Module:
    return build("resnet18", channels=3, size=(32, 32), outputs=10, args={})


def transposed() -> nn.Module:
    first, last = nn.Conv2d(3, 32, 3, 2, 1), nn.Conv2d(32, 4, 1)
    return nn.Sequential(first, nn.ReLU(), nn.ConvTranspose2d(32, 32, 4, 2, 1), nn.ReLU(), last)


def batch_norm_off() -> nn.Module:
    """Statistics of the batch, none of which are remembered."""
    norm = nn.BatchNorm2d(32, track_running_stats=False)
    middle = nn.Conv2d(32, 32, 3)
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(nn.Conv2d(3, 32, 3), norm, nn.ReLU(), middle, nn.ReLU(), pool, *head(32))


def one_axis() -> nn.Module:
    return nn.Sequential(
        nn.Conv1d(4, 32, 5, padding=2),
        nn.BatchNorm1d(32),
        nn.GELU(),
        nn.MaxPool1d(2),
        nn.Conv1d(32, 64, 3, 2),
        nn.ReLU(),
        nn.AdaptiveAvgPool1d(1),
        *head(64),
    )


def double() -> nn.Module:
    """No oneDNN: another kind of workspace."""
    pool = nn.AdaptiveAvgPool2d(1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 16, 3), pool, *head(16)
    ).double()


@dataclass(frozen=True)
class Case:
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    dtype: torch.dtype = torch.float32
    off_in_use: float = 0.15

    def batch(self) -> Tensor:
        if self.dtype == torch.long:
            return torch.randint(0, 500, self.shape)
        return torch.randn(self.shape, dtype=self.dtype)


CASES = {
    "functional": Case(Functional, (16, 3, 64, 64)),
    "resnet18": Case(resnet, (4, 3, 32, 32)),
    "transposed": Case(transposed, (8, 3, 64, 64)),
    "encoder": Case(lambda: Attending(True), (4, 512, 64)),
    "attention": Case(lambda: Attending(False), (4, 512, 64)),
    "batch norm off": Case(batch_norm_off, (16, 3, 32, 32)),
    "shared": Case(Shared, (16, 3, 64, 64)),
    # Max pooling of one axis keeps no places where nothing is learnt, but does so on meta: an index
    # of 8 bytes for every 4 bytes of its output.
    "one axis": Case(one_axis, (16, 4, 2048), off_in_use=0.25),
    "words": Case(Words, (32, 256), torch.long),
    "float64": Case(double, (8, 3, 32, 32), torch.float64),
}


def most_held(run: Callable[[], None], path: Path) -> int:
    """Most bytes at one time, from the record that PyTorch's profiler keeps of its allocator."""
    activities = [torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities, profile_memory=True) as profiler:
        run()
    profiler.export_chrome_trace(str(path))
    events = json.loads(path.read_text(encoding="utf-8"))["traceEvents"]
    found = [one for one in events if one["name"] == "[memory]"]
    held = most = 0
    for one in sorted(found, key=lambda one: one["ts"]):
        if one["args"]["Device Type"] == 0:
            held += one["args"]["Bytes"]
            most = max(most, held)
    return most


def saved(net: nn.Module, batch: Tensor) -> int:
    """Bytes of the storages that autograd keeps of a forward pass, without the network's own and
    the batch."""
    own = {one.untyped_storage()._cdata for one in (*net.parameters(), *net.buffers(), batch)}
    kept: dict[int, tuple[int, object]] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        kept[storage._cdata] = (storage.nbytes(), storage)  # alive, so that no number comes twice
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        net(batch)
    return sum(size for key, (size, _) in kept.items() if key not in own)


def near(planned: int, real: int, share: float = 0.15) -> bool:
    """The rest is for what libraries allocate for themselves: scratch of threads, blocks of another
    width on other processors."""
    return abs(planned - real) <= share * real + (64 << 10)


@pytest.mark.parametrize("name", CASES)
def test_activations_are_what_autograd_saves(name: str) -> None:
    case = CASES[name]
    net, batch = case.make().train(), case.batch()
    planned = sum(measure_step(net, batch).activations.values())
    # Exactly: none of these networks returns a tensor that its own layers need backwards.
    assert planned == saved(net, batch)


@pytest.mark.parametrize("name", CASES)
def test_the_peak_of_a_step_is_what_the_allocator_sees(name: str, tmp_path: Path) -> None:
    case = CASES[name]

    def run() -> None:
        net, batch = case.make().train(), case.batch()
        rule = usual_optimizer(net.parameters())
        for _ in range(2):  # the optimiser makes its state in the first step
            loss = usual_loss(net(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            del loss
            rule.step()
            rule.zero_grad(set_to_none=True)

    step = measure_step(case.make(), case.batch())
    real = most_held(run, tmp_path / "trace.json")
    assert near(step.peak, real), (step.peak, real)
    assert step.rough == ()


@pytest.mark.parametrize("name", CASES)
def test_the_peak_in_use_is_what_the_allocator_sees(name: str, tmp_path: Path) -> None:
    case = CASES[name]

    def run() -> None:
        net, batch = case.make().eval(), case.batch()
        with torch.no_grad():
            net(batch)

    planned = measure_use(case.make(), case.batch()).peak
    real = most_held(run, tmp_path / "trace.json")
    assert near(planned, real, case.off_in_use), (planned, real)


@pytest.mark.parametrize(("kind", "name"), [(nn.LSTM, "LSTM"), (nn.GRU, "GRU"), (nn.RNN, "RNN")])
def test_recurrent_layers_make_a_plan_rough(kind: type[nn.Module], name: str) -> None:
    net = Recurrent(kind)
    assert measure_step(net, (2, 5, 8)).rough == (name,)
    assert measure_use(net, (2, 5, 8)).rough == (name,)


def test_float64_without_a_rule_makes_a_plan_rough() -> None:
    net = nn.Sequential(nn.ConvTranspose2d(3, 4, 2), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 3, 4, 4))
    assert measure_step(net, (2, 3, 4, 4)).rough == ()
    given = torch.zeros(2, 3, 4, 4, dtype=torch.float64)
    assert measure_step(net.double(), given).rough == ("float64 convolution",)
    assert measure_use(net.double(), given).rough == ("float64 convolution",)


class Scores(nn.Module):
    """Attention of B×3·heads×L×E with itself."""

    def __init__(self, **how: object) -> None:
        super().__init__()
        self.how = how
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (x * self.scale).chunk(3, -3)
        how = dict(self.how)
        if "attn_mask" in how:
            sides = query.shape[-2], key.shape[-2]
            how["attn_mask"] = torch.ones(sides, dtype=how["attn_mask"], device=x.device)
        answer: Tensor = F.scaled_dot_product_attention(query, key, value, **how)
        return answer.mean((1, 2))


class Ran(TorchDispatchMode):
    """Names of operations."""

    def __init__(self) -> None:
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.names.add(func._schema.name.removeprefix("aten::"))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("how", "shape", "dtype"),
    [
        ({}, (2, 6, 8, 4), torch.float32),
        ({"is_causal": True}, (2, 6, 8, 4), torch.float32),
        ({"scale": 0.3}, (2, 6, 8, 4), torch.float64),
        ({"attn_mask": torch.bool}, (2, 6, 8, 4), torch.float32),
        ({"attn_mask": torch.float32}, (2, 6, 8, 4), torch.float32),
        ({"dropout_p": 0.1}, (2, 6, 8, 4), torch.float32),
        ({}, (6, 8, 4), torch.float32),
        ({}, (1, 2, 6, 8, 4), torch.float32),
    ],
)
def test_attention_is_the_operation_that_a_processor_runs(
    how: dict[str, object], shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    net, batch = Scores(**how), torch.randn(shape, dtype=dtype)
    step = measure_step(net, batch)
    real = Ran()
    with real:
        usual_loss(net(batch)).backward()  # type: ignore[no-untyped-call]
    planned = {work.op for _, work in step.work}
    kinds = {"bmm", "_safe_softmax", "_softmax_backward_data", "where"} | {
        f"_scaled_dot_product_flash_attention_for_cpu{end}" for end in ("", "_backward")
    }
    assert planned & kinds == real.names & kinds
    assert real.names & kinds


def test_attention_inside_a_layer_follows_autocast() -> None:
    net, batch = Attending(False), torch.randn(2, 16, 64)
    step = measure_step(net, batch, precision="bf16")
    names = {"mm", "addmm", "_scaled_dot_product_flash_attention_for_cpu"}
    dtypes = {work.inputs[-1].dtype for _, work in step.work if work.op in names}
    assert dtypes == {"bfloat16"}


def test_attention_on_a_card_keeps_no_scores() -> None:
    long = measure_step(Attending(False), (2, 2048, 64), precision="bf16", device="cuda")
    assert "_scaled_dot_product_flash_attention" in {work.op for _, work in long.work}
    assert long.peak < 2 * 4 * 2048 * 2048 * 2  # one copy of them


def test_attention_counts_as_torchs_counter_counts() -> None:
    # On meta, where its products are bare: the counter does not know a processor's attention.
    net, batch = Attending(False).eval().to("meta"), torch.empty(2, 16, 64, device="meta")
    counter = FlopCounterMode(display=False)
    with counter:
        net(batch)
    flops = counter.get_total_flops()
    step = measure_step(net, batch)
    forward = sum(macs for macs, _ in step.macs.values())
    assert 2 * forward == flops
    graph = trace(net, batch)
    assert 2 * sum(node_macs(graph, node) for node in graph.nodes) == flops
