"""Write `edgekit/assets/backbone.onnx`, the int8 features of EfficientNet-Lite0, and its float counterpart.

    python benchmarks/models/backbone.py --pictures FOLDER --float runs/backbone_float.onnx

Needs the extras `train` and `export`. FOLDER has the pictures of `PICTURES`: the folder `skimage/data` of the package
scikit-image 0.25 (public domain or CC0). The int8 ranges come from `CROPS` random crops of them, with flips and changed
brightness, contrast and colour.

The net: batch normalisation folded into the convolutions; "same" padding as fixed padding, which is equal for sizes in
multiples of 32; the uint8 pixels are the first convolution's quantised input (scale 1/128, zero point 127), so that the
normalisation costs nothing and rounds nothing; the global pooling is in float.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from onnxruntime import quantization as ortq
from timm.layers import Conv2dSame
from torch import nn

from edgekit import __version__
from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec, Provenance
from edgekit.device.imaging import read_image
from edgekit.export.to_onnx import OPSET, finished
from edgekit.model_store import ASSETS
from edgekit.models.nets.external_nets import (
    EFFICIENTNET_LITE0,
    LITE0_MEAN,
    LITE0_SCALE,
    LITE0_SHA256,
    LITE0_STD,
    efficientnet_lite0,
    imagenet_weights,
)
from edgekit.preprocess import CROP_MARGIN, ImageU8

PICTURES = ("astronaut", "brick", "camera", "chelsea", "coffee", "grass", "gravel", "rocket")
CROPS, SIDE_PX, SEED = 320, 160, 0
SIZES_PX = (96, 128, 160, 192, 224)


class Features(nn.Module):
    """The features after the global pooling: float images (N, 3, H, W), sides in multiples of 32, to (N, 1280)."""

    def __init__(self) -> None:
        super().__init__()
        net = efficientnet_lite0(1000).eval()
        net.load_state_dict(imagenet_weights())
        _fix_padding(net)
        self.net = net

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps: torch.Tensor = self.net.forward_features(images)
        return maps.mean((2, 3))


def _fix_padding(module: nn.Module) -> None:
    for name, child in list(module.named_children()):
        if isinstance(child, Conv2dSame):
            conv = nn.Conv2d(
                child.in_channels, child.out_channels, child.kernel_size, child.stride, groups=child.groups, bias=False
            )
            conv.weight = child.weight
            before = (child.kernel_size[0] - 2) // 2
            setattr(module, name, nn.Sequential(nn.ZeroPad2d((before, before + 1, before, before + 1)), conv))
        else:
            _fix_padding(child)


def float_model() -> onnx.ModelProto:
    """Return the float net for normalised images, batch normalisation and padding folded, height and width dynamic."""
    program = torch.onnx.export(
        Features().eval(),
        (torch.zeros(2, 3, SIDE_PX, SIDE_PX),),
        dynamo=True,
        verbose=False,
        opset_version=OPSET,
        input_names=["image"],
        output_names=["features"],
        dynamic_shapes=({0: torch.export.Dim("batch")},),
    )
    assert program is not None
    model: onnx.ModelProto = program.model_proto
    _fold_pads(model.graph)
    for axis, name in ((2, "height"), (3, "width")):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = name
    del model.graph.value_info[:]
    for node in model.graph.node:
        del node.metadata_props[:]  # torch's stack traces, with paths of this machine
    return model


def _fold_pads(graph: onnx.GraphProto) -> None:
    constants = {each.name: each for each in graph.initializer}
    for pad in [node for node in graph.node if node.op_type == "Pad"]:
        amounts = numpy_helper.to_array(constants[pad.input[1]])
        (conv,) = [node for node in graph.node if pad.output[0] in node.input]
        attribute = next(each for each in conv.attribute if each.name == "pads")
        assert conv.op_type == "Conv"
        assert not any(attribute.ints)
        attribute.ints[:] = [int(amounts[axis]) for axis in (2, 3, 6, 7)]
        conv.input[0] = pad.input[0]
        graph.node.remove(pad)


def calibration_images(folder: Path) -> ImageU8:
    """Return `CROPS` crops, uint8 (N, SIDE_PX, SIDE_PX, 3) R, G, B."""
    random = np.random.default_rng(SEED)
    pictures = [read_image(folder / f"{name}.png" if name != "rocket" else folder / "rocket.jpg") for name in PICTURES]
    crops = []
    for index in range(CROPS):
        image = pictures[index % len(pictures)]
        image = np.repeat(image[:, :, None], 3, axis=2) if image.ndim == 2 else image
        side = int(min(image.shape[:2]) * random.uniform(0.3, 1.0))
        top, left = (int(random.integers(0, have - side + 1)) for have in image.shape[:2])
        crop = cv2.resize(image[top : top + side, left : left + side], (SIDE_PX, SIDE_PX), interpolation=cv2.INTER_AREA)
        crop = crop[:, :: random.choice([-1, 1])][:, :, random.permutation(3)].astype(np.float32)
        contrast, brightness = random.uniform(0.6, 1.5), random.uniform(-40, 40)
        crops.append(np.clip((crop - 127) * contrast + 127 + brightness, 0, 255).astype(np.uint8))
    return np.stack(crops)


class _Reader(ortq.CalibrationDataReader):  # type: ignore[misc]
    def __init__(self, images: ImageU8) -> None:
        self._images = iter(images)

    def get_next(self) -> dict[str, np.ndarray] | None:
        image = next(self._images, None)
        return None if image is None else {"image": normalised(image[None])}


def normalised(images_rgb: ImageU8) -> np.ndarray:
    """Return float32 (N, 3, H, W), the input of `float_model`."""
    values = np.moveaxis(images_rgb, -1, 1).astype(np.float32)
    return np.ascontiguousarray((values * LITE0_SCALE - LITE0_MEAN[0]) / LITE0_STD[0])


def quantized(model: onnx.ModelProto, images: ImageU8) -> onnx.ModelProto:
    """Return the int8 model, whose input is uint8 pixels."""
    pools = [node.name for node in model.graph.node if node.op_type in ("ReduceMean", "GlobalAveragePool")]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        ortq.quantize_static(
            source,
            target,
            _Reader(images),
            quant_format=ortq.QuantFormat.QDQ,
            per_channel=True,
            activation_type=ortq.QuantType.QUInt8,
            weight_type=ortq.QuantType.QInt8,
            nodes_to_exclude=pools,
            calibrate_method=ortq.CalibrationMethod.MinMax,
        )
        result = onnx.load(target)
    _take_pixels(result.graph)
    return result


def _take_pixels(graph: onnx.GraphProto) -> None:
    """Let the input's uint8 pixels be the quantised input of the first convolution: (pixel - 127) / 128."""
    image = graph.input[0]
    (quantize,) = [node for node in graph.node if "image" in node.input]
    (dequantize,) = [node for node in graph.node if quantize.output[0] in node.input]
    constants = {each.name: each for each in graph.initializer}
    scale = numpy_helper.from_array(np.array(LITE0_SCALE / LITE0_STD[0], np.float32), dequantize.input[1])
    constants[dequantize.input[1]].CopyFrom(scale)
    zero = numpy_helper.from_array(np.array(round(LITE0_MEAN[0]), np.uint8), dequantize.input[2])
    constants[dequantize.input[2]].CopyFrom(zero)
    dequantize.input[0] = "image"
    graph.node.remove(quantize)
    image.type.tensor_type.elem_type = TensorProto.UINT8


def with_uint8_input(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return the float model for uint8 pixels."""
    result = onnx.ModelProto()
    result.CopyFrom(model)
    graph = result.graph
    for node in graph.node:
        node.input[:] = ["normalised" if name == "image" else name for name in node.input]
    graph.initializer.append(numpy_helper.from_array(np.array(LITE0_MEAN[0], np.float32), "mean"))
    graph.initializer.append(numpy_helper.from_array(np.array(LITE0_STD[0], np.float32), "std"))
    graph.node.insert(0, helper.make_node("Cast", ["image"], ["pixels"], "pixels", to=TensorProto.FLOAT))
    graph.node.insert(1, helper.make_node("Sub", ["pixels", "mean"], ["centred"], "centred"))
    graph.node.insert(2, helper.make_node("Div", ["centred", "std"], ["normalised"], "normalised"))
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    return result


def contract(precision: Literal["float32", "int8"], calibration: str | None) -> Contract:
    """Return the contract of the file."""
    size_hw = (SIDE_PX, SIDE_PX)
    return Contract(
        architecture=EFFICIENTNET_LITE0,
        labels=(),
        input=InputSpec(
            "image", size_hw, "rgb", LITE0_SCALE, LITE0_MEAN, LITE0_STD, element_type="uint8", sizes_px=SIZES_PX
        ),
        crop=CropSpec(CROP_MARGIN, False, size_hw, size_hw),
        output=OutputSpec("features", "features"),
        precision=precision,
        calibration=calibration,
        verified_level="all",
        subject="image",
        provenance=Provenance("ImageNet", LITE0_SHA256, edgekit_version=__version__),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=Path, required=True)
    parser.add_argument("--float", type=Path, help="also write the float file")
    parser.add_argument("--output", type=Path, default=ASSETS / "backbone.onnx")
    given = parser.parse_args()
    model = float_model()
    if given.float:
        onnx.save(finished(with_uint8_input(model), contract("float32", None)), given.float)
    text = (
        f"{CROPS} crops of {len(PICTURES)} pictures of scikit-image, minmax, qdq u8s8 per channel, pooling in float32"
    )
    onnx.save(finished(quantized(model, calibration_images(given.pictures)), contract("int8", text)), given.output)
    print(f"{given.output}: {given.output.stat().st_size / 1e6:.2f} MB, 1280 features")


if __name__ == "__main__":
    main()
