"""What a foreign ONNX classifier states about itself: Ultralytics', OpenVINO Model API's and timm's descriptions."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.contract import Channels, Fit, InputSpec
from edgekit.errors import InputError
from edgekit.export.foreign.import_options import ImportOptions

# timm's description of a model, beside its weights.
TIMM_CONFIG = "config.json"
_MODEL_API = "model_info"
_MODEL_API_FITS: dict[str, Fit] = {"standard": "stretch", "crop": "square"}
_TIMM_FITS: dict[str, Fit] = {"center": "square", "squash": "stretch", "border": "pad"}


@dataclass(frozen=True)
class Stated:
    """Statements about a classifier; None where there is none. `by` names the program that wrote them.

    `values` are scale, mean and std as in `edgekit.contract.InputSpec`. `crop_share` is the share of the side that the
    centre crop keeps.
    """

    by: str = ""
    labels: tuple[str, ...] | None = None
    size_px: int | None = None
    channels: Channels | None = None
    values: tuple[float, tuple[float, ...], tuple[float, ...]] | None = None
    fit: Fit | None = None
    crop_share: float = 1.0


def read_stated(metadata: Mapping[str, str], path: Path) -> Stated:
    """Return the statements in the metadata of the model file `path`, or in timm's config.json beside it.

    Raises:
        InputError: The model is no classifier, or a statement cannot be read.
    """
    config = path.parent / TIMM_CONFIG
    try:
        if "names" in metadata and "task" in metadata:
            return _ultralytics(metadata, path)
        # The Model API's keys are "model_info labels", "model_info mean_values", and so on.
        info = {key.split()[-1]: value for key, value in metadata.items() if key.split()[:1] == [_MODEL_API]}
        if info:
            return _model_api(info, path)
        if config.is_file():
            return _timm(json.loads(config.read_text()))
    # What reading Python literals, JSON and numbers raises for statements of another form.
    except (ValueError, SyntaxError, TypeError, AttributeError, OSError, RecursionError) as error:
        raise InputError(f"the description of model '{path}' cannot be read ({error}): export it again") from error
    return Stated()


def assumed(stated: Stated, options: ImportOptions, spec: InputSpec) -> str:
    """Return a line for the user about what is assumed: what neither the file nor an option states; empty if nothing.

    `spec` is the input in the new contract.
    """
    assumptions = []
    if spec.channels != "gray" and not (options.channels or stated.channels):
        assumptions.append(f"colour order {spec.channels} (--channels)")
    takes_floats = spec.element_type == "float32"  # a uint8 model normalises the pixels in its graph
    if takes_floats and (options.mean or not stated.values):  # --mean and --std do not state the range of the pixels
        assumptions.append("pixels 0 to 255" if spec.scale == 1 else "pixels 0 to 1")
    if takes_floats and not (options.mean or stated.values):
        mean_and_std = "mean 0 and std 1" if spec.channels == "gray" else "mean and std of ImageNet"
        assumptions.append(f"{mean_and_std} (--mean, --std)")
    if not (options.fit or stated.fit):
        assumptions.append("crop to a square (--fit)")
    return f"not stated, and assumed: {', '.join(assumptions)}" if assumptions else ""


def _ultralytics(metadata: Mapping[str, str], path: Path) -> Stated:
    """Return the statements of Ultralytics' metadata, which contains Python literals such as {0: 'cat', 1: 'dog'}."""
    if metadata["task"] != "classify":
        raise InputError(f"model '{path}' is for the task '{metadata['task']}': edgekit runs classifiers")
    names = ast.literal_eval(metadata["names"])
    input_hw = ast.literal_eval(metadata["imgsz"]) if "imgsz" in metadata else []
    return Stated(
        by="Ultralytics",
        labels=tuple(str(names[index]) for index in sorted(names)),
        size_px=int(input_hw[0]) if len(set(input_hw)) == 1 else None,  # only that of a square input
        channels="rgb",
        values=(1 / 255, (0.0,) * 3, (1.0,) * 3),  # pixels of 0 to 1
        fit="square",
    )


def _model_api(info: Mapping[str, str], path: Path) -> Stated:
    """Return the statements of OpenVINO's Model API, whose images are B, G, R unless it reverses their channels."""
    kind = info.get("model_type", "classification").lower()
    if kind != "classification":
        raise InputError(f"model '{path}' is for the task '{kind}': edgekit runs classifiers")
    mean, std = _per_channel(info.get("mean_values")), _per_channel(info.get("scale_values"))
    reverses_channels = info.get("reverse_input_channels", "").lower() in ("true", "yes", "1")
    return Stated(
        by="OpenVINO Model API",
        labels=tuple(info["labels"].split()) if info.get("labels") else None,
        channels="rgb" if reverses_channels else "bgr",
        values=(1.0, mean or (0.0,) * 3, std or (1.0,) * 3),  # scale, mean, std for pixels of 0 to 255
        # The other types, "fit_to_window" and "fit_to_window_letterbox", keep the aspect ratio and pad.
        fit=_MODEL_API_FITS.get(info.get("resize_type", "standard"), "pad"),
    )


def _timm(document: Mapping[str, Any]) -> Stated:
    """Return the statements of timm's config.json."""
    config = document.get("pretrained_cfg", document)
    if "mean" not in config:
        return Stated()  # a config.json of another program
    labels = document.get("label_names") or config.get("label_names")
    return Stated(
        by="timm",
        labels=tuple(map(str, labels)) if labels else None,
        size_px=int(config["input_size"][-1]) if "input_size" in config else None,  # (channels, height, width)
        channels="rgb",
        values=(1 / 255, tuple(map(float, config["mean"])), tuple(map(float, config["std"]))),
        fit=_TIMM_FITS.get(config.get("crop_mode", "center"), "square"),
        crop_share=float(config.get("crop_pct") or 1.0),
    )


def _per_channel(text: str | None) -> tuple[float, ...] | None:
    """Return the numbers of a text such as "123.7 116.3 103.5"; None without text.

    A single number is for all three channels.
    """
    if not text:
        return None
    values = tuple(map(float, text.split()))
    return values * 3 if len(values) == 1 else values
