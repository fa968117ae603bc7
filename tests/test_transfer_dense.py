"""Knowledge carried over to networks that answer for every pixel, and how much of it may change."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from neocog.config import TransferRecipe
from neocog.errors import ConfigError
from neocog.models import transfer
from neocog.models.catalog import build
from neocog.verbs.transfer import Origin, begin, told

NAMES = ("sky", "road", "tree", "car")
AFTER = ("car", "bike", "sky")
"""`NAMES` by 3 and 0; the second is new."""


def make(name: str, seed: int, outputs: int, size: tuple[int, int] = (32, 32), **args: Any) -> Any:
    """A network with weights and statistics drawn."""
    torch.manual_seed(seed)
    net = build(name, channels=3, size=size, outputs=outputs, args=args)
    for key, one in net.state_dict().items():
        if one.is_floating_point():
            one.copy_(torch.rand(one.shape) + 0.5 if "var" in key else 0.1 * torch.randn(one.shape))
    return net.eval()


def carry(net: nn.Module, old: nn.Module, **more: Any) -> transfer.Carried:
    outputs = transfer.output_layers(net, (3, 32, 32))
    found = transfer.carry(net, old.state_dict(), source="there", outputs=outputs, **more)
    net.load_state_dict(dict(found.tensors))
    return found


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


# -- which layers make the answer ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("unet", {"width": 2}),
        ("unet", {"width": 2, "padding": "valid", "depth": 2}),
        ("unet_backbone", {"width": 16}),
        ("segnet", {"width": 2}),
        ("deconvnet", {"width": 2, "hidden": 4}),
    ],
)
def test_the_last_convolution_makes_the_maps(name: str, args: dict[str, Any]) -> None:
    net = build(name, channels=3, size=(32, 32), outputs=5, args=args)
    assert transfer.output_layers(net, (3, 32, 32)) == ("score",)
    assert transfer.output_layers(net, (3, 41, 37)) == ("score",)


def test_the_scores_of_all_stages_make_the_maps_of_an_fcn() -> None:
    args = {"width": 2, "hidden": 4}
    net = build("fcn8s", channels=3, size=(32, 32), outputs=5, args=args)
    assert transfer.output_layers(net, (3, 32, 32)) == (
        *("score", "doublings.0", "skips.0", "doublings.1", "skips.1", "upsampling"),
    )
    net = build("fcn32s", channels=3, size=(32, 32), outputs=5, args=args)
    assert transfer.output_layers(net, (3, 32, 32)) == ("score", "upsampling")


class Foreign(nn.Module):
    """Two convolutions whose maps are added and scaled up, one more between, and a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Conv2d(8, 4, 1)
        self.side = nn.Conv2d(6, 4, 1)
        self.first = nn.Conv2d(3, 6, 3, padding=1)
        self.second = nn.Conv2d(6, 8, 3, padding=1)
        self.gate = nn.Linear(6, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(x)
        y = self.head(self.second(x)) * torch.sigmoid(self.gate(x.mean((2, 3))))[..., None, None]
        return F.interpolate((y + self.side(x)).softmax(1), scale_factor=2)


def test_layers_of_any_network_are_found_on_the_way_back() -> None:
    assert set(transfer.output_layers(Foreign(), (3, 9, 9))) == {"head", "side"}


# -- a classifier's weights ------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", ["resnet18", "mobilenet_v2", "densenet121", "vgg16_bn"])
def test_a_classifier_finds_its_place(backbone: str) -> None:
    """Its levels become the network's, and its last layers are listed as left."""
    hidden = {"hidden": 8} if backbone.startswith("vgg") else {"stem": "large"}
    old = make(backbone, 1, 3, (64, 64), **hidden)
    net = make("unet_backbone", 2, 4, (64, 64), backbone=backbone, width=16)
    fresh = net.decoder[0][0].weight.clone()
    found = carry(net, old, before=("cat", "dog", "owl"), after=NAMES)
    x = images(2, 3, 64, 64)
    with torch.no_grad():
        for mine, theirs in zip(net.forward_features(x), old.forward_features(x), strict=True):
            torch.testing.assert_close(mine, theirs)
    theirs = set(old.state_dict())
    heads = {name for name in theirs if name.startswith(("fc.", "classifier."))}
    assert heads
    assert set(found.left) == heads
    assert {name.removeprefix("backbone.") for name in found.taken} == theirs - heads
    assert all(name.startswith(("decoder.", "score.")) for name in found.fresh)
    assert torch.equal(net.decoder[0][0].weight, fresh)
    assert found.classes == ()


def test_a_classifier_in_a_wrapper_and_for_other_channels() -> None:
    """What all names begin with is left out, and the first kernels fit themselves, as ever."""
    old = make("resnet18", 1, 3, (64, 64), stem="large")
    net = build("unet_backbone", channels=1, size=(64, 64), outputs=4, args={"width": 16})
    wrapped = {f"module.{name}": one for name, one in old.state_dict().items()}
    found = transfer.carry(net, wrapped, source="there")
    kernel = old.conv1.weight.sum(1, keepdim=True)
    torch.testing.assert_close(found.tensors["backbone.conv1.weight"], kernel)
    assert found.adapted == ("backbone.conv1.weight: kernels for 3 channels became kernels for 1",)
    assert found.left == ("fc.weight", "fc.bias")


def test_another_classifier_is_refused() -> None:
    old = make("resnet18", 1, 3, (64, 64), stem="large")
    net = make("unet_backbone", 2, 4, (64, 64), backbone="mobilenet_v2", width=16)
    with pytest.raises(ConfigError, match="holds 0% of this network"):
        carry(net, old, after=NAMES)


@pytest.mark.parametrize(
    ("name", "args", "norm"),
    [
        ("fcn8s", {"batch_norm": False}, "none"),
        ("fcn8s", {"batch_norm": True}, "batch"),
        ("deconvnet", {"norm": "none"}, "none"),
        ("segnet", {}, "batch"),
    ],
)
def test_linear_layers_of_vgg_become_convolutions(
    name: str, args: dict[str, Any], norm: str
) -> None:
    """A classifier of 7×7 maps, slid over maps of 7×7: what stands in the middle is its answer."""
    old = make("vgg16", 1, 3, (64, 64), head="large", hidden=8, norm=norm)
    net = make(name, 2, 4, **args, **({} if name == "segnet" else {"hidden": 8}))
    found = carry(net, old, after=NAMES)
    if name == "segnet":
        kept = set(old.state_dict()) - set(found.left)
        assert kept == {one for one in old.state_dict() if one.startswith("features.")}
        return
    assert found.left == ("classifier.6.weight", "classifier.6.bias")
    first = "fc6.weight" if name == "fcn8s" else "fc6.0.weight"
    assert f"{first}: a matrix of 8×25088 became kernels of 8×512×7×7" in found.adapted
    maps = images(1, 512, 7, 7)
    with torch.no_grad():
        expected = old.classifier[:5](maps.flatten(1))
        six = net.fc6(maps) if name == "deconvnet" else net.relu6(net.fc6(maps))
        seven = net.fc7(six) if name == "deconvnet" else net.relu7(net.fc7(six))
    middle = seven.shape[-1] // 2
    torch.testing.assert_close(seven[:, :, middle, middle], expected, rtol=1e-4, atol=1e-4)


# -- other classes ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("unet", {"width": 4}),
        ("unet", {"width": 4, "padding": "valid", "depth": 2}),
        ("unet_backbone", {"width": 16}),
        ("segnet", {"width": 4}),
        ("deconvnet", {"width": 2, "hidden": 4}),
    ],
)
def test_maps_go_by_the_names_of_the_classes(name: str, args: dict[str, Any]) -> None:
    """The new network answers for a class that both know what the old one did."""
    old, net = make(name, 1, 4, **args), make(name, 2, 3, **args)
    fresh = net.score.weight.clone()
    found = carry(net, old, before=NAMES, after=AFTER)
    x = images(2, 3, 32, 37)
    with torch.no_grad():
        torch.testing.assert_close(net(x)[:, [0, 2]], old(x)[:, [3, 0]])
    assert torch.equal(net.score.weight[1], fresh[1])
    assert found.classes == ("car", "sky")
    assert found.left == ()
    assert found.fresh == dict.fromkeys(("score.weight", "score.bias"), "1 of 3 classes are new")


def test_maps_of_an_fcn_go_by_the_names_of_the_classes() -> None:
    """Its scores of three stages, and the transposed convolutions that mix maps, on both sides."""
    args = {"width": 2, "hidden": 4}
    old, net = make("fcn8s", 1, 4, **args), make("fcn8s", 2, 4, **args)
    after = (NAMES[2], NAMES[0], NAMES[3], NAMES[1])
    found = carry(net, old, before=NAMES, after=after)
    x = images(2, 3, 45, 37)
    with torch.no_grad():
        torch.testing.assert_close(net(x), old(x)[:, [2, 0, 3, 1]])
    assert found.fresh == {}
    fewer = make("fcn8s", 3, 3, **args)
    mixing = fewer.doublings[0].weight.clone()
    found = carry(fewer, old, before=NAMES, after=AFTER)
    known = fewer.doublings[0].weight[[0, 2]][:, [0, 2]]
    assert torch.equal(known, old.doublings[0].weight[[3, 0]][:, [3, 0]])
    assert torch.equal(fewer.doublings[0].weight[1], mixing[1])
    assert torch.equal(fewer.doublings[0].weight[:, 1], mixing[:, 1])
    assert found.fresh["doublings.0.weight"] == "1 of 3 classes are new"


def test_maps_without_names_are_not_taken_by_their_places() -> None:
    old, net = make("fcn8s", 1, 4, width=2, hidden=4), make("fcn8s", 2, 4, width=2, hidden=4)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    found = carry(net, old, after=NAMES)
    heads = ("score", "skips", "doublings", "upsampling")
    assert {name.partition(".")[0] for name in found.fresh} == set(heads)
    drawn = [name for name, one in before.items() if one.is_floating_point()]
    for name, one in ((name, net.state_dict()[name]) for name in drawn):
        assert torch.equal(one, before[name]) == name.startswith(heads), name


# -- freezing --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "args", "stages"),
    [
        ("unet", {"width": 2}, ["backbone.0", "backbone.1", "backbone.2", "backbone.3"]),
        (
            "unet_backbone",
            {"width": 16},
            ["backbone.relu", "backbone.layer1", "backbone.layer2", "backbone.layer3"],
        ),
        (
            "unet_backbone",
            {"width": 16, "backbone": "vgg16_bn"},
            [f"backbone.trunk.{at}" for at in (5, 12, 22, 32)],
        ),
        ("segnet", {"width": 2}, [f"backbone.trunk.{at}" for at in (5, 12, 22, 32)]),
        (
            "fcn16s",
            {"width": 2, "hidden": 4},
            [f"backbone.trunk.{at}" for at in (5, 12, 22, 32)],
        ),
    ],
)
def test_stages_of_the_way_down_are_frozen(
    name: str, args: dict[str, Any], stages: list[str]
) -> None:
    net = build(name, channels=3, size=(32, 32), outputs=3, args=args)
    outputs = transfer.output_layers(net, (3, 32, 32))
    found = transfer.stages(net, outputs)
    assert [one.name for one in found][:4] == stages
    assert [one.name for one in found][5:] == ["output"]
    assert not any(one.startswith("backbone.") for one in found[-1].parameters)
    assert sorted(one for part in found for one in part.parameters) == sorted(
        one for one, _ in net.named_parameters()
    )
    frozen = transfer.freeze(net, 2, outputs=outputs)
    assert frozen.stages == tuple(stages[:2])
    x = images(2, 3, 32, 32)
    before = [level.detach() for level in net.eval().forward_features(x)]
    for path in frozen.still:
        net.get_submodule(path).eval()
    rule = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    net(x).square().mean().backward()
    rule.step()
    after = net.forward_features(x)
    assert [torch.equal(one, two) for one, two in zip(before, after, strict=True)][:3] == [
        *(True, True, False)
    ]


def test_all_but_the_last_convolution() -> None:
    net = build("unet_backbone", channels=3, size=(32, 32), outputs=3, args={"width": 16})
    outputs = transfer.output_layers(net, (3, 32, 32))
    assert transfer.freeze(net, "all", outputs=outputs).stages == ("all but score",)
    learnt = [name for name, one in net.named_parameters() if one.requires_grad]
    assert learnt == ["score.weight", "score.bias"]


@pytest.mark.parametrize("norms", ["learn", "keep"])
def test_a_fresh_way_up_learns_over_a_frozen_backbone(norms: Any) -> None:
    """A step of gradient descent: what came along stays bit for bit, statistics included; every
    other layer changes, and so do the statistics of its norms."""
    old = make("resnet18", 1, 3, (64, 64), stem="large")
    net = make("unet_backbone", 2, 3, (64, 64), width=16)
    origin = Origin(name="there", tensors=old.state_dict(), classes=("cat", "dog", "owl"))
    recipe = TransferRecipe(source="there", freeze="all", norms=norms)
    begun = begin(net, recipe, origin, NAMES[:3], (3, 64, 64))
    kept = begun.frozen
    assert kept.stages == ("all but score, decoder",)
    before = {name: one.clone() for name, one in net.state_dict().items()}
    net.train()
    for path in kept.still:
        net.get_submodule(path).eval()
    rule = torch.optim.SGD([p for p in net.parameters() if p.requires_grad], lr=0.1)
    F.cross_entropy(net(images(2, 3, 64, 64)), torch.zeros(2, 64, 64).long()).backward()
    rule.step()
    for name, one in net.state_dict().items():
        assert torch.equal(one, before[name]) == name.startswith("backbone."), name
    numbers = sum(one.numel() for name, one in net.named_parameters() if "backbone" in name)
    wanted = f"frozen: all but score, decoder: {numbers:,} parameters; what is fresh learns"
    assert wanted in told(begun.summary(net, "there"))


def test_scores_of_all_stages_learn_where_they_are_fresh() -> None:
    """But for the last scaling of an FCN-8s, which is given and never learns."""
    old = make("fcn8s", 1, 4, width=2, hidden=4)
    net = make("fcn8s", 2, 4, width=2, hidden=4)
    found = carry(net, old, after=NAMES)
    outputs = transfer.output_layers(net, (3, 32, 32))
    transfer.freeze(net, "all", outputs=outputs, fresh=found.fresh)
    learnt = [name for name, one in net.named_parameters() if one.requires_grad]
    assert {name.partition(".")[0] for name in learnt} == {"score", "skips", "doublings"}
    assert len(learnt) == len({*found.fresh} - {"upsampling.weight"})


@pytest.mark.parametrize("how", [1, "all"])
def test_a_fresh_layer_among_those_taken_over_is_not_frozen(how: Any) -> None:
    """The first kernels of small pictures are of another size than those of large ones."""
    old = make("resnet18", 1, 3, (64, 64), stem="large")
    net = make("resnet18", 2, 3, (64, 64), stem="small")
    found = carry(net, old, before=NAMES[:3], after=NAMES[:3])
    assert found.fresh == {"conv1.weight": "64×3×7×7 there, 64×3×3×3 here"}
    kept = transfer.freeze(net, how, fresh=found.fresh)
    assert net.conv1.weight.requires_grad
    assert not net.bn1.weight.requires_grad
    assert kept.stages == (("layer1",) if how == 1 else ("all but fc, conv1",))
    assert "bn1" in kept.still
    assert "conv1" not in kept.still


def test_weights_without_counters_of_batches_are_frozen_all_the_same() -> None:
    """As they were published before there were any."""
    old = make("resnet18", 1, 3, (64, 64))
    net = make("resnet18", 2, 3, (64, 64))
    tensors = {name: one for name, one in old.state_dict().items() if "num_batches" not in name}
    found = transfer.carry(net, tensors, source="there", after=NAMES[:3])
    assert "bn1.num_batches_tracked" in found.fresh
    kept = transfer.freeze(net, "all", fresh=found.fresh)
    learnt = [name for name, one in net.named_parameters() if one.requires_grad]
    assert learnt == ["fc.weight", "fc.bias"]
    assert "bn1" in kept.still
    assert kept.stages == ("all but fc",)


def test_auxiliary_heads_stay_where_all_before_them_does() -> None:
    net = build("googlenet", channels=3, size=(64, 64), outputs=3, args={})
    outputs = transfer.output_layers(net, (3, 64, 64))
    assert len(outputs) == 3
    fresh = {name for name in net.state_dict() if name.startswith(("fc.", "aux"))}
    kept = transfer.freeze(net, "all", outputs=outputs, fresh=fresh)
    learnt = [name for name, one in net.named_parameters() if one.requires_grad]
    assert learnt == [f"{outputs[0]}.weight", f"{outputs[0]}.bias"]
    assert kept.stages == (f"all but {outputs[0]}",)


def test_rates_fall_from_the_way_up_to_the_picture() -> None:
    net = build("unet_backbone", channels=3, size=(32, 32), outputs=3, args={"width": 16})
    rates = transfer.rates(net, 0.5, transfer.output_layers(net, (3, 32, 32)))
    assert rates["decoder.0.0.weight"] == rates["score.bias"] == 1
    assert rates["backbone.layer4.0.conv1.weight"] == 0.5
    assert rates["backbone.conv1.weight"] == 0.5**5
