"""Features of pictures: the shipped model `backbone` for whole images, or `default` before its classifier for faces.

embedder = Embedder(size_px=160)
embedder.features([image_bgr])   # (1, 1280)
embedder.views(image_bgr)        # (2, 1280): the picture and its mirror image, for teaching
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from edgekit.contract import Contract, Subject
from edgekit.device.engines.session import (
    default_intra_op_threads,
    load_session,
    read_contract,
    run_session,
    session_options,
)
from edgekit.device.imaging import resize
from edgekit.device.teach import DEFAULT_SIZE_PX
from edgekit.errors import InputError
from edgekit.model_store import BACKBONE, ONNX_SUFFIX, resolve_model
from edgekit.preprocess import AnyImage, FloatArray, ImageU8, crop_image, to_input, with_mirror_images

_MODELS: dict[Subject, str] = {"image": BACKBONE, "face": "default"}


class Embedder:
    """A model that returns features.

    Attributes:
        subject: What pictures show: whole images, or crops of faces.
        path: The model file.
        contract: Its contract, with the chosen size.
    """

    def __init__(
        self,
        size_px: int = DEFAULT_SIZE_PX,
        subject: Subject = "image",
        threads: int | None = None,
        model: str | Path | None = None,
    ) -> None:
        """Load the model.

        Args:
            size_px: Side of the images that the net sees: 96, 128, 160, 192 or 224; faces have one size only.
            subject: Whole images, or faces.
            threads: Threads within one inference; default: one on a PC, all processors on other machines.
            model: A file of features, or for faces a classifier; default: the shipped one.

        Raises:
            InputError: The model does not accept the size, or is not installed.
        """
        self.subject = subject
        self.path = resolve_model(str(model or _MODELS[subject]), (ONNX_SUFFIX,))
        options = session_options(threads or default_intra_op_threads())
        source: str | bytes = str(self.path)
        if subject == "face":
            from edgekit.device.teach.write import face_features

            source = face_features(self.path).SerializeToString()  # the classifier without its last layer
        self._session = load_session(self.path, source, options)
        self.contract = with_size(read_contract(self._session, self.path), size_px)

    def features(self, images_bgr: Sequence[AnyImage]) -> FloatArray:
        """Return the features (N, features) of images: uint8 (H, W) gray or (H, W, 3) B, G, R, of any sizes."""
        return self._infer(images_bgr, mirrored=False)

    def views(self, image_bgr: AnyImage) -> FloatArray:
        """Return the features (2, features) of an image and of its mirror image."""
        return self._infer([image_bgr], mirrored=True)

    def _infer(self, images_bgr: Sequence[AnyImage], mirrored: bool) -> FloatArray:
        """Return the features (N, features) of images; `mirrored` appends those of their mirror images."""
        size_hw = self.contract.input.size_hw
        crops = np.stack([crop_image(image, self.contract.crop, size_hw, resize) for image in images_bgr])
        return self.crop_features(with_mirror_images(crops) if mirrored else crops)

    def crop_features(self, crops: ImageU8) -> FloatArray:
        """Return the features (N, features) of crops of the net's size: uint8 (N, H, W, 1 or 3) gray or R, G, B."""
        feed = {self.contract.input.name: to_input(crops, self.contract.input)}
        (features,) = run_session(self._session, self.path, [self.contract.output.name], feed)
        return np.asarray(features, np.float32)


def with_size(contract: Contract, size_px: int) -> Contract:
    """Return the contract of a model for inputs of `size_px` x `size_px`; unchanged for a model with one size only.

    Raises:
        InputError: The model does not accept the size.
    """
    allowed_px = contract.input.sizes_px
    if not allowed_px:
        return contract
    if size_px not in allowed_px:
        raise InputError(f"size {size_px} px: expected one of {', '.join(map(str, allowed_px))}")
    size_hw = (size_px, size_px)
    spec = replace(contract.input, size_hw=size_hw)
    crop = replace(contract.crop, resize_hw=size_hw, center_crop_hw=size_hw)
    return replace(contract, input=spec, crop=crop)
