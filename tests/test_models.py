"""One contract for every architecture of the catalogue, then what each promises by itself."""

from __future__ import annotations

import copy
import math
import shutil
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load, save
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import reference
from neocog.errors import ConfigError
from neocog.models.catalog import CATALOG, build
from neocog.models.cnn import fitting_depth
from neocog.planning.make import describe

SIZES = [(28, 28), (32, 32), (33, 47)]
MAPS = {name for name, entry in CATALOG.items() if entry.gives == "map"}
"""They answer B×K×H×W, and for every size."""
UNPADDED = {"alexnet", "inception_v3", "lenet5", "speednet"}
"""Their levels are smaller than size / stride."""

# Small variants of every argument that changes the shape of the graph.
VARIANTS = [
    ("alexnet", {"hidden": 64}),
    ("cnn", {"width": 8}),
    ("cnn", {"width": 8, "head": "gap", "norm": "group", "pool": "avg", "activation": "gelu"}),
    ("cnn", {"width": 6, "norm": "none", "depth": 4, "convs": 1, "kernel": 5, "dropout": 0.2}),
    ("deconvnet", {"width": 8, "hidden": 64, "norm": "none"}),
    ("densenet121", {}),
    ("efficientnet_b0", {}),
    ("fcn8s", {"width": 8, "hidden": 64}),
    ("fcn8s", {"width": 8, "hidden": 64, "batch_norm": False}),
    ("googlenet", {"auxiliary": False}),
    ("highway", {"width": 8}),
    ("highway", {"width": 4, "depth": 1, "activation": "tanh"}),
    ("lenet5", {}),
    ("lenet5", {"activation": "relu", "pool": "max"}),
    ("lenet5", {"wiring": 1998}),
    ("mlp", {"width": 32}),
    ("mlp", {"width": 16, "depth": 1, "norm": "batch", "dropout": 0.5, "activation": "silu"}),
    ("mlp", {"width": 16, "norm": "layer"}),
    ("mlp", {"depth": 0}),
    ("mobilenet_v2", {}),
    ("resnet18", {}),
    ("segnet", {"width": 8}),
    ("speednet", {"width": 8}),
    ("speednet", {"width": 4, "depth": 2}),
    ("unet", {"width": 8}),
    ("unet", {"width": 8, "depth": 2, "padding": "valid", "norm": "none", "dropout": 0.5}),
    ("unet_backbone", {"width": 64}),
    ("unet_backbone", {"width": 32, "stem": "small", "backbone": "mobilenet_v2", "norm": "group"}),
    ("vgg11", {"hidden": 64}),
    ("vgg11", {"hidden": 64, "norm": "batch"}),
]
DEEPER = {
    *(f"efficientnet_b{number}" for number in range(1, 8)),
    *("convnext_tiny", "inception_v3"),
    *("resnet34", "resnet50", "resnet101", "resnet152"),
    *("vgg13", "vgg16", "vgg16_bn", "vgg19"),
    *("fcn16s", "fcn32s"),
}
"""More of the same layers: too big to compute with here, so their shapes alone are under contract;
the layers are under contract in a variant above, or compared with formulas in test_families.py and
test_families_modern.py."""
variants = pytest.mark.parametrize(
    ("name", "args"), VARIANTS, ids=[f"{n}-{'-'.join(map(str, a))}" for n, a in VARIANTS]
)


def make(name: str, args: dict, channels: int = 3, size=(32, 32), outputs: int = 7) -> nn.Module:
    torch.manual_seed(0)
    return build(name, channels=channels, size=size, outputs=outputs, args=args)


def images(channels: int = 3, size=(32, 32), batch: int = 3) -> torch.Tensor:
    return torch.randn(batch, channels, *size, generator=torch.Generator().manual_seed(1))


def fix_places(net: nn.Module) -> None:
    """Maxima stand where they stood in the first run: which of two values that round to one is the
    greater is no matter of precision, and unpooling puts what comes back into another place."""
    for part in net.modules():
        if isinstance(part, nn.MaxPool2d) and part.return_indices:
            part.register_forward_hook(
                lambda _m, _i, output, kept={}: (output[0], kept.setdefault("places", output[1]))
            )


def answered(name: str, batch: int, size: tuple[int, int]) -> tuple[int, ...]:
    """Shape of the answer."""
    return (batch, 7, *(size if name in MAPS else ()))


def test_every_entry_is_under_contract() -> None:
    assert {name for name, _ in VARIANTS} | DEEPER == set(CATALOG)


@pytest.mark.parametrize("name", sorted(DEEPER))
def test_the_deeper_ones_have_the_levels_that_they_declare(name: str) -> None:
    for size in ((28, 28), (97, 130)):
        with torch.device("meta"):
            net = make(name, {}, 1, size).eval()
            x = torch.empty(2, 1, *size)
            levels = net.forward_features(x)
            assert net(x).shape == answered(name, 2, size)
        modules = dict(net.named_modules())
        assert len(levels) == len(net.features) > 0
        for level, info in zip(levels, net.features, strict=True):
            assert info.name in modules
            assert level.shape[:2] == (2, info.channels)
            for got, side in zip(level.shape[2:], size, strict=True):
                assert got <= math.ceil(side / info.stride)
                assert name in UNPADDED or got >= max(1, side // info.stride)


@variants
@pytest.mark.parametrize("channels", [1, 3])
def test_levels_are_what_they_are_declared_to_be(name: str, args: dict, channels: int) -> None:
    for size in SIZES:
        net = make(name, args, channels, size).eval()
        x = images(channels, size)
        seen = {}
        modules = dict(net.named_modules())
        for info in net.features:
            modules[info.name].register_forward_hook(
                lambda _m, _i, output, kept=seen, key=info.name: kept.update({key: output})
            )
        with torch.no_grad():
            levels = net.forward_features(x)
            outputs = net(x)
        assert outputs.shape == answered(name, 3, size)
        assert len(levels) == len(net.features) > 0
        assert len(seen) == len(levels)  # distinct layers
        strides = [info.stride for info in net.features]
        assert strides == sorted(set(strides))  # finest first, each coarser than the one before
        for level, info in zip(levels, net.features, strict=True):
            assert level.shape[:2] == (3, info.channels)
            for got, side in zip(level.shape[2:], size, strict=True):
                if args.get("padding") == "valid":  # of the picture and its mirror images
                    assert got >= side // info.stride
                    continue
                assert got <= math.ceil(side / info.stride)
                if name not in UNPADDED:
                    assert got >= max(1, side // info.stride)
            assert torch.equal(level, seen[info.name])


@variants
def test_the_last_level_decides_the_answer(name: str, args: dict) -> None:
    """With the last level put out, all pictures get one answer: nothing else reaches the head.
    Maps are made of all levels."""
    net = make(name, args).eval()
    x = images()
    modules = dict(net.named_modules())
    handles = [
        modules[info.name].register_forward_hook(lambda _m, _i, output: torch.zeros_like(output))
        for info in net.features[0 if name in MAPS else -1 :]
    ]
    with torch.no_grad():
        blind = net(x)
        for handle in handles:
            handle.remove()
        assert torch.allclose(blind, blind[:1].expand_as(blind))
        assert not torch.allclose(net(x), blind)


@variants
def test_gradients_reach_every_parameter(name: str, args: dict) -> None:
    net = make(name, args).train()
    net(images(batch=8)).square().sum().backward()
    for path, parameter in net.named_parameters():
        if not parameter.requires_grad:  # fixed by design, and said so in the docstring
            assert parameter.grad is None, path
            continue
        assert parameter.grad is not None, path
        assert parameter.grad.isfinite().all(), path
        assert parameter.grad.any(), path


@variants
def test_bfloat16_gradients_point_where_those_of_float32_do(name: str, args: dict) -> None:
    """On pictures with two odd sides, as autocast trains: weights and gradients stay float32."""
    size = (29, 31) if name == "lenet5" else (17, 23)
    net = make(name, args, size=size).train()
    x, targets = images(size=size, batch=8), torch.arange(8) % 7
    if name in MAPS:
        targets = targets[:, None, None] + torch.arange(size[0])[:, None] + torch.arange(size[1])
        targets %= 7
    fix_places(net)
    found = []
    for lower in (False, True):
        net.zero_grad()
        torch.manual_seed(3)  # one dropout for both
        with torch.autocast("cpu", torch.bfloat16, enabled=lower):
            loss = nn.functional.cross_entropy(net(x).float(), targets)
        loss.backward()
        assert loss.isfinite()
        grads = {path: p.grad for path, p in net.named_parameters() if p.requires_grad}
        for path, grad in grads.items():
            assert grad is not None, path
            assert grad.dtype == torch.float32, path
            assert grad.isfinite().all(), path
        found.append(torch.cat([grad.flatten() for grad in grads.values()]))
    # At first, batch norm over few positions magnifies the rounding of every layer before it.
    assert torch.cosine_similarity(*found, dim=0) > (0.3 if len(net.features) > 3 else 0.9)


@variants
def test_in_use_answers_repeat_and_do_not_depend_on_the_batch(name: str, args: dict) -> None:
    net = make(name, args)
    net.train()(images(batch=8))  # running averages that differ from 0 and 1
    net.eval()
    x = images(batch=5)
    before = copy.deepcopy(net.state_dict())
    with torch.no_grad():
        whole = net(x)
        assert torch.equal(net(x), whole)
        single = torch.cat([net(x[i : i + 1]) for i in range(5)])
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-5)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


@variants
def test_weights_round_trip_through_safetensors(name: str, args: dict) -> None:
    net = make(name, args).eval()
    torch.manual_seed(99)
    other = build(name, channels=3, size=(32, 32), outputs=7, args=args).eval()
    with torch.no_grad():
        assert not torch.equal(other(images()), net(images()))
        other.load_state_dict(load(save(net.state_dict())))
        assert torch.equal(other(images()), net(images()))


@pytest.mark.parametrize(("name", "args"), [one for one in VARIANTS if one[0] in MAPS])
def test_maps_are_as_large_as_any_picture(name: str, args: dict) -> None:
    """Built for one size, used at others: also for one picture."""
    net = make(name, args, size=(33, 47)).eval()
    for size in ((16, 16), (17, 23), (47, 33), (98, 61)):
        with torch.no_grad():
            found = net(images(size=size, batch=1))
        assert found.shape == (1, 7, *size)
        assert found.isfinite().all()


@variants
def test_same_seed_same_weights(name: str, args: dict) -> None:
    one, two = make(name, args).state_dict(), make(name, args).state_dict()
    assert list(one) == list(two)
    assert all(torch.equal(one[key], two[key]) for key in one)


@variants
def test_bfloat16_and_channels_last(name: str, args: dict) -> None:
    net = make(name, args).eval()
    fix_places(net)
    x = images()
    with torch.no_grad():
        plain = net(x)
        last = net.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
        torch.testing.assert_close(last, plain, rtol=1e-3, atol=1e-4)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x)
    assert rough.dtype == torch.bfloat16
    # bfloat16 keeps eight bits; the error stays a small share of the answers' spread.
    assert (rough.float() - plain).abs().max() < 0.1 * plain.std() + 0.02 * plain.abs().max()


@variants
def test_nothing_is_written_in_place(name: str, args: dict) -> None:
    """No module changes its input, which a hook, a level or a trace may hold."""
    net = make(name, args).eval()
    changed = []
    for path, module in net.named_modules():
        versions = {}
        module.register_forward_pre_hook(
            lambda _m, i, kept=versions: kept.update(before=(i[0], i[0]._version))
        )
        module.register_forward_hook(
            lambda _m, _i, _o, kept=versions, key=path: (
                changed.append(key) if kept["before"][0]._version != kept["before"][1] else None
            )
        )
    net(images())
    assert changed == []


@variants
def test_can_be_traced_and_built_without_memory(name: str, args: dict) -> None:
    net = make(name, args).eval()
    graph = torch.fx.symbolic_trace(net)
    with torch.no_grad():
        assert torch.equal(graph(images()), net(images()))
    with torch.device("meta"):
        ghost = make(name, args).eval()
        assert ghost(torch.empty(2, 3, 32, 32)).shape == answered(name, 2, (32, 32))


@pytest.mark.parametrize("name", sorted(CATALOG))
def test_every_entry_can_be_planned_at_its_published_size(name: str) -> None:
    """Every operation is understood, and all are counted: PyTorch's own counter agrees."""
    channels, *size = CATALOG[name].sample
    with torch.device("meta"):
        net = make(name, {}, channels, tuple(size)).eval()
    plan = describe(net, CATALOG[name].sample)
    assert plan.unknown == ()
    assert plan.graph.parameter_count == count(net)
    auxiliary = sum(
        p.numel() for path, p in net.named_parameters() if path.lower().startswith("aux")
    )
    assert sum(layer.parameters for layer in plan.layers) == count(net) - auxiliary
    assert plan.layers[-1].shape[:2] == (1, 7)
    assert len(plan.layers[-1].shape) == len(answered(name, 1, tuple(size)))
    with FlopCounterMode(display=False) as counted, torch.no_grad():
        net(torch.empty(1, *CATALOG[name].sample, device="meta"))
    assert 2 * sum(layer.macs for layer in plan.layers) == counted.get_total_flops()


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("cnn", {"width": 4, "depth": 2}),
        ("lenet5", {"wiring": 1998}),
        ("unet", {"width": 2, "depth": 2, "padding": "valid"}),
    ],
)
def test_is_one_graph_for_the_compiler(name: str, args: dict) -> None:
    net = make(name, args).train()
    twin = copy.deepcopy(net)
    torch._dynamo.reset()
    answer = torch.compile(twin, fullgraph=True, backend="aot_eager")(images())
    answer.square().sum().backward()
    expected = net(images())
    expected.square().sum().backward()
    torch.testing.assert_close(answer, expected)
    for (path, one), other in zip(net.named_parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, msg=path, rtol=1e-3, atol=1e-5)
    for one, other in zip(net.buffers(), twin.buffers(), strict=True):
        torch.testing.assert_close(one, other)


@pytest.mark.skipif(shutil.which("c++") is None, reason="torch.compile needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of PyTorch's own modules
def test_compiled_answers_are_the_same() -> None:
    net = make("cnn", {"width": 2, "depth": 1, "convs": 1, "norm": "none"}, 1, (8, 8)).eval()
    torch._dynamo.reset()
    x = images(1, (8, 8))
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net)(x), net(x))


@pytest.mark.parametrize(
    ("name", "args", "smallest"),
    [
        ("alexnet", {"hidden": 8}, 15),
        ("alexnet", {"hidden": 8, "stem": "large"}, 63),
        ("cnn", {"depth": 4}, 16),
        ("googlenet", {}, 8),
        ("googlenet", {"stem": "large"}, 32),
        ("lenet5", {}, 28),
        ("deconvnet", {"width": 2, "hidden": 8}, 16),
        ("fcn32s", {"width": 2, "hidden": 8}, 16),
        ("segnet", {"width": 2}, 16),
        ("unet", {"width": 2}, 16),
        ("unet", {"width": 2, "depth": 1, "padding": "valid"}, 2),
        ("unet_backbone", {"width": 16}, 8),
        ("unet_backbone", {"width": 16, "stem": "large"}, 32),
        ("resnet18", {}, 8),
        ("resnet18", {"stem": "large"}, 32),
        ("vgg11", {"hidden": 8}, 16),
        ("vgg11", {"hidden": 8, "head": "large"}, 32),
        ("cnn", {}, 2),
        ("mlp", {}, 1),
    ],
)
def test_the_smallest_size_works_and_one_less_is_refused(
    name: str, args: dict, smallest: int
) -> None:
    for size in ((smallest, smallest), (smallest, smallest + 3)):
        net = make(name, args, size=size).eval()
        assert net(images(size=size)).isfinite().all()
    if smallest > 1:
        for size in ((smallest - 1, smallest - 1), (smallest + 9, smallest - 1)):
            with pytest.raises(ConfigError, match=f"from {smallest}×{smallest} pixels on"):
                make(name, args, size=size)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("cnn", {"kernel": 2}, "kernel is odd"),
        ("cnn", {"width": 0}, "width is at least 1"),
        ("cnn", {"depth": 0}, "depth is at least 1"),
        ("cnn", {"dropout": 1.0}, "dropout lies in"),
        ("cnn", {"head": "gab"}, "did you mean 'gap'"),
        ("cnn", {"activation": "rely"}, "did you mean 'relu'"),
        ("cnn", {"norm": "layer"}, "norm"),
        ("mlp", {"depth": -1}, "depth is at least 0"),
        ("mlp", {"norm": "bach"}, "did you mean 'batch'"),
        ("lenet5", {"pool": "mix"}, "pool"),
        ("alexnet", {"stem": "larg"}, "did you mean 'large'"),
        ("alexnet", {"hidden": 0}, "hidden is at least 1"),
        ("googlenet", {"auxiliary_dropout": 1.0}, "auxiliary_dropout lies in"),
        ("resnet18", {"stem": "smal"}, "did you mean 'small'"),
        ("resnet152", {"stem": "smal"}, "did you mean 'small'"),
        ("vgg16", {"head": "smal"}, "did you mean 'small'"),
        ("vgg16", {"norm": "bach"}, "did you mean 'batch'"),
        ("unet", {"padding": "vaild"}, "did you mean 'valid'"),
        ("unet", {"depth": 0}, "depth is at least 1"),
        ("unet_backbone", {"backbone": "resnet81"}, "did you mean 'resnet18'"),
        ("unet_backbone", {"backbone": "unet"}, "no backbone is called 'unet'"),
        ("unet_backbone", {"backbone": "mlp"}, "mlp has no maps"),
        ("unet_backbone", {"stem": "smal"}, "did you mean 'small'"),
        ("unet_backbone", {"stem": "smal", "backbone": "vgg16"}, "did you mean 'small'"),
        ("fcn8s", {"dropout": 1.0}, "dropout lies in"),
        ("segnet", {"width": 0}, "width is at least 1"),
        ("deconvnet", {"norm": "bach"}, "did you mean 'batch'"),
    ],
)
def test_senseless_arguments_are_refused(name: str, args: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(name, args)
    module, _, function = CATALOG[name].factory.partition(":")
    factory = getattr(__import__(f"neocog.{module}", fromlist=[function]), function)
    with pytest.raises(ConfigError, match=message):  # called from Python, without the catalogue
        factory(channels=3, size=(32, 32), outputs=7, **args)


# Each by itself ---------------------------------------------------------------------------------


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_lenet5_has_the_published_number_of_parameters_and_sizes() -> None:
    net = make("lenet5", {}, channels=1, outputs=10)
    assert count(net) == 61_706
    formula = reference.parameters
    assert count(net) == sum(
        (
            *(formula(6, 1, (5, 5)), formula(16, 6, (5, 5)), formula(120, 16, (5, 5))),
            *(formula(84, 120), formula(10, 84)),
        )
    )
    for size in ((32, 32), (28, 28), (28, 32)):
        net = make("lenet5", {}, channels=1, size=size)
        levels = net.forward_features(images(1, size))
        assert [tuple(level.shape[1:]) for level in levels] == [(6, 28, 28), (16, 10, 10)]
        assert not hasattr(net.head, "fit")
    assert hasattr(make("lenet5", {}, size=(64, 64)).head, "fit")


def test_resnet18_has_the_published_parameters() -> None:
    with torch.device("meta"):
        net = make("resnet18", {}, size=(224, 224), outputs=1000)
        levels = net.forward_features(torch.empty(1, 3, 224, 224))
    assert count(net) == 11_689_512
    assert [tuple(level.shape[1:]) for level in levels] == [
        *((64, 112, 112), (64, 56, 56), (128, 28, 28), (256, 14, 14), (512, 7, 7)),
    ]
    shapes = {key: tuple(value.shape) for key, value in net.state_dict().items()}
    assert len(shapes) == 122
    for key, shape in {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer1.1.bn2.bias": (64,),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.num_batches_tracked": (),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
        "fc.weight": (1000, 512),
        "fc.bias": (1000,),
    }.items():
        assert shapes[key] == shape


def test_resnet18_chooses_its_stem_by_the_size() -> None:
    with torch.device("meta"):
        for size, first in (((32, 32), 1), ((64, 200), 1), ((65, 65), 2), ((224, 224), 2)):
            assert make("resnet18", {}, size=size).features[0].stride == first
        assert make("resnet18", {"stem": "large"}, size=(32, 32)).features[0].stride == 2


def test_zero_init_makes_every_block_the_identity_at_first() -> None:
    net = make("resnet18", {"zero_init": True}).eval()
    x = torch.rand(1, 64, 8, 8)
    assert torch.equal(net.layer1(x), x)


def test_cnn_is_the_classic_sequence() -> None:
    net = make("cnn", {"width": 4, "depth": 2, "dropout": 0.5})
    kinds = [type(m).__name__ for m in net.modules() if not list(m.children())]
    block = ["Conv2d", "BatchNorm2d", "ReLU"] * 2
    assert kinds == [*block, "MaxPool2d", *block, "MaxPool2d", "Flatten", "Dropout", "Linear"]
    assert net.head.linear.in_features == 8 * 8 * 8


def test_cnn_has_the_parameters_of_the_formula() -> None:
    net = make("cnn", {"width": 8, "depth": 2, "norm": "none"}, size=(28, 28), outputs=10)
    formula = reference.parameters
    stages = ((8, 3), (8, 8), (16, 8), (16, 16))
    convs = sum(formula(out, into, (3, 3)) for out, into in stages)
    assert count(net) == convs + formula(10, 16 * 7 * 7)


def test_cnn_names_the_depth_that_fits() -> None:
    with pytest.raises(ConfigError, match=r"model_args.depth=3"):
        make("cnn", {"depth": 4}, size=(15, 40))
    with pytest.raises(ConfigError, match=r"data.size=2,2"):
        make("cnn", {}, size=(1, 40))


def test_fitting_depth_leaves_enough_pixels() -> None:
    for side in range(2, 400):
        depth = fitting_depth((side, side + 1))
        assert fitting_depth((side + 1, side)) == depth
        assert side / 2**depth >= (1 if side < 4 else 2 if depth <= 3 else 3)
        one_more = side / 2 ** (depth + 1)
        assert depth == 5 or one_more < (2 if depth < 3 else 3)


def test_mlp_counts_its_layers() -> None:
    net = make("mlp", {"width": 1000, "depth": 1}, channels=1, size=(28, 28), outputs=10)
    assert count(net.body) == 785_000
    assert count(make("mlp", {"depth": 0}, channels=1, size=(28, 28), outputs=10)) == 7_850


def test_mlp_without_hidden_layers_is_linear() -> None:
    net = make("mlp", {"depth": 0}).eval()
    x, y = images(), images().flip(0)
    with torch.no_grad():
        torch.testing.assert_close(net(x + y) + net(x * 0), net(x) + net(y), rtol=1e-4, atol=1e-4)


def test_a_network_without_memory_has_the_same_weights_and_loads_no_compiler() -> None:
    code = (
        "import sys; from neocog.models import catalog; from neocog.models.empty import "
        "without_memory\n"
        "with without_memory():\n"
        "    net = catalog.build('resnet18', channels=3, size=(32, 32), outputs=10, args={})\n"
        "    catalog.build('unet_backbone', channels=3, size=(32, 32), outputs=10, args={})\n"
        "    catalog.build('fcn8s', channels=3, size=(32, 32), outputs=10, args={})\n"
        "    catalog.build('deconvnet', channels=3, size=(32, 32), outputs=10, args={})\n"
        "print(sum(p.numel() for p in net.parameters()), 'torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["11173962", "False"]
