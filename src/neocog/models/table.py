"""The table behind `catalog`: what each name stands for. Floor 2, room models; imports nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["CATALOG", "Entry"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One architecture."""

    factory: str
    """`module:function`, relative to the package."""
    summary: str
    """One line for people."""
    paper: str
    """Where it comes from."""
    sample: tuple[int, int, int] = (3, 224, 224)
    """C×H×W that it was published for."""
    dims: tuple[int, ...] = (2,)
    """What it takes: 1 for signals, 2 for pictures, 3 for volumes."""
    gives: Literal["classes", "map"] = "classes"
    """What it answers with: B×outputs, or B×outputs×H×W, maps as large as the picture."""


_ALL = (1, 2, 3)
CATALOG: dict[str, Entry] = {
    "alexnet": Entry(
        factory="models.alexnet:alexnet",
        summary="large kernels, then 3×3, then two wide linear layers; 61,100,840 parameters",
        paper="Krizhevsky, Sutskever, Hinton 2012; Krizhevsky 2014, arXiv 1404.5997",
    ),
    "cnn": Entry(
        factory="models.cnn:cnn",
        summary="the classic: (conv, norm, activation) · convs, pool, depth times; then linear",
        paper="LeCun et al. 1989; Simonyan and Zisserman 2014, arXiv 1409.1556",
        sample=(3, 32, 32),
        dims=_ALL,
    ),
    "convnext_tiny": Entry(
        factory="models.convnext:convnext_tiny",
        summary="large kernels and layer norm: a residual network taught by transformers",
        paper="Liu et al. 2022, arXiv 2201.03545",
    ),
    "deconvnet": Entry(
        factory="models.deconvnet:deconvnet",
        summary="a VGG and its mirror image: maxima return to where they stood, then deconvolution",
        paper="Noh, Hong, Han 2015, arXiv 1505.04366",
        gives="map",
    ),
    "densenet121": Entry(
        factory="models.densenet:densenet121",
        summary="every layer sees what all layers before it found",
        paper="Huang, Liu, van der Maaten, Weinberger 2016, arXiv 1608.06993",
    ),
    "efficientnet_b0": Entry(
        factory="models.efficientnet:efficientnet_b0",
        summary="found by search: few weights and multiply-accumulates for what it can",
        paper="Tan and Le 2019, arXiv 1905.11946",
    ),
    "efficientnet_b1": Entry(
        factory="models.efficientnet:efficientnet_b1",
        summary="B0, 1.1 times as deep; made for 240×240",
        paper="Tan and Le 2019, arXiv 1905.11946",
    ),
    "efficientnet_b2": Entry(
        factory="models.efficientnet:efficientnet_b2",
        summary="B0, 1.1 times as wide and 1.2 as deep; made for 260×260",
        paper="Tan and Le 2019, arXiv 1905.11946",
    ),
    "efficientnet_b3": Entry(
        factory="models.efficientnet:efficientnet_b3",
        summary="B0, 1.2 times as wide and 1.4 as deep; made for 300×300",
        paper="Tan and Le 2019, arXiv 1905.11946",
    ),
    "efficientnet_b4": Entry(
        factory="models.efficientnet:efficientnet_b4",
        summary="B0, 1.4 times as wide and 1.8 as deep; made for 380×380",
        paper="Tan and Le 2019, arXiv 1905.11946",
    ),
    "efficientnet_b5": Entry(
        factory="models.efficientnet:efficientnet_b5",
        summary="B0, 1.6 times as wide and 2.2 as deep; made for 456×456",
        paper="Tan and Le 2019, arXiv 1905.11946",
    ),
    "efficientnet_b6": Entry(
        factory="models.efficientnet:efficientnet_b6",
        summary="B0, 1.8 times as wide and 2.6 as deep; made for 528×528",
        paper="Tan and Le 2019, arXiv 1905.11946",
    ),
    "efficientnet_b7": Entry(
        factory="models.efficientnet:efficientnet_b7",
        summary="B0, twice as wide and 3.1 times as deep; made for 600×600",
        paper="Tan and Le 2019, arXiv 1905.11946",
    ),
    "fcn16s": Entry(
        factory="models.fcn:fcn16s",
        summary="fcn32s, corrected by what the fourth stage sees",
        paper="Long, Shelhamer, Darrell 2014, arXiv 1411.4038",
        sample=(3, 500, 500),
        gives="map",
    ),
    "fcn32s": Entry(
        factory="models.fcn:fcn32s",
        summary="VGG-16 slid over the picture, its answers scaled up 32 times",
        paper="Long, Shelhamer, Darrell 2014, arXiv 1411.4038",
        sample=(3, 500, 500),
        gives="map",
    ),
    "fcn8s": Entry(
        factory="models.fcn:fcn8s",
        summary="fcn16s, corrected by what the third stage sees",
        paper="Long, Shelhamer, Darrell 2014, arXiv 1411.4038",
        sample=(3, 500, 500),
        gives="map",
    ),
    "googlenet": Entry(
        factory="models.googlenet:googlenet",
        summary="Inception modules: kernels of several sizes side by side; two auxiliary heads",
        paper="Szegedy et al. 2014, arXiv 1409.4842",
    ),
    "highway": Entry(
        factory="models.highway:highway",
        summary="gates learn what each layer changes and what it hands on",
        paper="Srivastava, Greff, Schmidhuber 2015, arXiv 1505.00387",
        sample=(3, 32, 32),
    ),
    "inception_v3": Entry(
        factory="models.inception:inception_v3",
        summary="branches of different reach, and a second head for training",
        paper="Szegedy, Vanhoucke, Ioffe, Shlens, Wojna 2015, arXiv 1512.00567",
        sample=(3, 299, 299),
    ),
    "lenet5": Entry(
        factory="models.lenet:lenet5",
        summary="the network that read cheques; 61,706 parameters at 1×32×32",
        paper="LeCun, Bottou, Bengio, Haffner 1998",
        sample=(1, 32, 32),
    ),
    "mlp": Entry(
        factory="models.mlp:mlp",
        summary="fully connected layers only: the baseline that convolution has to beat",
        paper="Rumelhart, Hinton, Williams 1986",
        sample=(1, 28, 28),
        dims=_ALL,
    ),
    "mobilenet_v2": Entry(
        factory="models.mobilenet:mobilenet_v2",
        summary="depthwise convolutions between narrow layers: made for telephones",
        paper="Sandler, Howard, Zhu, Zhmoginov, Chen 2018, arXiv 1801.04381",
    ),
    "resnet18": Entry(
        factory="models.resnet:resnet18",
        summary="18 layers with shortcuts; the stem is chosen by the size of the picture",
        paper="He, Zhang, Ren, Sun 2015, arXiv 1512.03385",
        dims=_ALL,
    ),
    "resnet34": Entry(
        factory="models.resnet:resnet34",
        summary="34 layers with shortcuts; 21,797,672 parameters",
        paper="He, Zhang, Ren, Sun 2015, arXiv 1512.03385",
        dims=_ALL,
    ),
    "resnet50": Entry(
        factory="models.resnet:resnet50",
        summary="50 layers in bottlenecks with shortcuts; 25,557,032 parameters",
        paper="He, Zhang, Ren, Sun 2015, arXiv 1512.03385",
        dims=_ALL,
    ),
    "resnet101": Entry(
        factory="models.resnet:resnet101",
        summary="101 layers in bottlenecks with shortcuts; 44,549,160 parameters",
        paper="He, Zhang, Ren, Sun 2015, arXiv 1512.03385",
        dims=_ALL,
    ),
    "resnet152": Entry(
        factory="models.resnet:resnet152",
        summary="152 layers in bottlenecks with shortcuts; 60,192,808 parameters",
        paper="He, Zhang, Ren, Sun 2015, arXiv 1512.03385",
        dims=_ALL,
    ),
    "segnet": Entry(
        factory="models.segnet:segnet",
        summary="VGG-16 there and back: maxima return to where they stood; few weights",
        paper="Badrinarayanan, Kendall, Cipolla 2015, arXiv 1511.00561",
        sample=(3, 360, 480),
        gives="map",
    ),
    "speednet": Entry(
        factory="models.speednet:speednet",
        summary="whitened first layer, three wide stages: small pictures in few epochs",
        paper="Page 2018; Jordan 2024, arXiv 2404.00498",
        sample=(3, 32, 32),
    ),
    "unet": Entry(
        factory="models.unet:unet",
        summary="down, up, and at each level what was seen on the way down; 31 million parameters",
        paper="Ronneberger, Fischer, Brox 2015, arXiv 1505.04597",
        sample=(1, 572, 572),
        gives="map",
    ),
    "unet_backbone": Entry(
        factory="models.unet:unet_backbone",
        summary="the way up of a U-Net on any network of this list, whose weights it can take over",
        paper="Ronneberger, Fischer, Brox 2015, arXiv 1505.04597",
        sample=(3, 256, 256),
        gives="map",
    ),
    "vgg11": Entry(
        factory="models.vgg:vgg11",
        summary="8 layers of 3×3 convolutions, three linear; 132,863,336 parameters",
        paper="Simonyan and Zisserman 2014, arXiv 1409.1556",
    ),
    "vgg13": Entry(
        factory="models.vgg:vgg13",
        summary="10 layers of 3×3 convolutions, three linear; 133,047,848 parameters",
        paper="Simonyan and Zisserman 2014, arXiv 1409.1556",
    ),
    "vgg16": Entry(
        factory="models.vgg:vgg16",
        summary="13 layers of 3×3 convolutions, three linear; 138,357,544 parameters",
        paper="Simonyan and Zisserman 2014, arXiv 1409.1556",
    ),
    "vgg16_bn": Entry(
        factory="models.vgg:vgg16_bn",
        summary="vgg16 with batch norm after each convolution; 138,365,992 parameters",
        paper="Simonyan and Zisserman 2014, arXiv 1409.1556",
    ),
    "vgg19": Entry(
        factory="models.vgg:vgg19",
        summary="16 layers of 3×3 convolutions, three linear; 143,667,240 parameters",
        paper="Simonyan and Zisserman 2014, arXiv 1409.1556",
    ),
}
