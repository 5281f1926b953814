"""The nets of published_latencies.csv that torchvision and timm have, as ONNX graphs.

These nets are left out, because neither library has them in the form that the benchmark ran: shufflenet (v1),
proxylessnasnet, blazeface, the SSD and YOLO nets, nanodet, MobileFaceNet, and vision_transformer, whose variant is not
published.
"""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import onnx
import timm
import torch
import torchvision
from onnxscript import optimizer
from torch import nn

from edgekit.export.profiling.cost import load_graph


def caffe_alexnet() -> nn.Module:
    """Return AlexNet with groups as in Caffe and ncnn (torchvision's has none), without its two normalisations."""
    return nn.Sequential(
        nn.Conv2d(3, 96, 11, 4),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(96, 256, 5, padding=2, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Conv2d(256, 384, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(384, 384, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.MaxPool2d(3, 2),
        nn.Flatten(),
        nn.Linear(9216, 4096),
        nn.ReLU(),
        nn.Linear(4096, 4096),
        nn.ReLU(),
        nn.Linear(4096, 1000),
    )


def _torchvision(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: torchvision.models.get_model(name, weights=None, **options)


def _timm(name: str, **options: object) -> Callable[[], nn.Module]:
    return lambda: timm.create_model(name, pretrained=False, **options)


_COMPUTED_WIDTHS = ("regnety_400m",)  # its constructor reads values of tensors, which do not exist on "meta"
# The constructor of each net by its name in the CSV.
NETS: dict[str, Callable[[], nn.Module]] = {
    "squeezenet": _torchvision("squeezenet1_1"),
    "mobilenet": _timm("mobilenetv1_100"),
    "mobilenet_v1": _timm("mobilenetv1_100"),
    "mobilenet_v2": _torchvision("mobilenet_v2"),
    "mobilenet_v3": _torchvision("mobilenet_v3_large"),
    "shufflenet_v2": _torchvision("shufflenet_v2_x1_0"),
    "mnasnet": _torchvision("mnasnet1_0"),
    "efficientnet_b0": _torchvision("efficientnet_b0"),
    "efficientnetv2_b0": _timm("tf_efficientnetv2_b0", pad_type=""),
    "regnety_400m": _torchvision("regnet_y_400mf"),
    "googlenet": _torchvision("googlenet", aux_logits=False, init_weights=False),
    "resnet18": _torchvision("resnet18"),
    "resnet50": _torchvision("resnet50"),
    "alexnet": caffe_alexnet,
    "vgg16": _torchvision("vgg16", init_weights=False),
}


def graph_of(name: str, input_px: int) -> onnx.ModelProto:
    """Return a net of the CSV as an ONNX model with folded BatchNorm and arbitrary weights."""
    # "meta" skips the initialisation of up to 138 million weights.
    with nullcontext() if name in _COMPUTED_WIDTHS else torch.device("meta"):
        net = NETS[name]()
    net = net.to_empty(device="cpu").eval()
    with torch.no_grad():
        for index, tensor in enumerate((*net.parameters(), *net.buffers())):
            # Different values: the exporter would merge equal tensors.
            tensor.fill_(1 + index / 1024)
    stream = io.BytesIO()
    with warnings.catch_warnings():
        # The deprecated tracing exporter takes a tenth of the time of the one in `edgekit export`.
        warnings.simplefilter("ignore")
        torch.onnx.export(net, (torch.zeros(1, 3, input_px, input_px),), stream, dynamo=False, opset_version=17)
    # Folds computed shapes.
    optimized: onnx.ModelProto = optimizer.optimize(onnx.load_from_string(stream.getvalue()))
    return optimized


def yunet_at(path: Path, width_px: int, height_px: int) -> onnx.ModelProto:
    """Return the YuNet model with its input size fixed to the given one."""
    model = load_graph(path)
    for dimension, size in zip(
        model.graph.input[0].type.tensor_type.shape.dim, (1, 3, height_px, width_px), strict=True
    ):
        dimension.dim_value = size
    return model
