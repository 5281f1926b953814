"""Rewrite gray-stem: a net for gray pictures takes one input channel instead of three channels with equal pixels."""

from __future__ import annotations

from dataclasses import replace as with_fields

import numpy as np
from onnxscript import ir

from edgekit.contract import Contract, channel_count
from edgekit.export.passes.editing import convolution, replace, reweighted


def gray_stem(model: ir.Model, contract: Contract) -> tuple[int, Contract]:
    """Sum the first convolution's weights over its input channels if the contract's crops are gray.

    Let x be the gray picture, normalised with mean[0] and std[0]. Then the net's input channel c is a_c x + b_c, with
    a_c = std[0] / std[c] and b_c = (mean[0] - mean[c]) / std[c]. The new weight is the sum over c of a_c weight_c. The
    offsets b_c are zero if all channels have one mean. Otherwise they are added to the bias, which is exact only
    without zero padding.

    Returns:
        The number of convolutions changed and the contract with "gray" input; 0 and the same contract if the crops
        have colour, another node reads the input, or the means differ and the convolution pads.
    """
    image, spec = model.graph.inputs[0], contract.input
    if not contract.crop.grayscale or spec.channels == "gray":
        return 0, contract
    mean, std = np.asarray(spec.mean), np.asarray(spec.std)
    gains, offsets = std[0] / std, (mean[0] - mean) / std
    convolutions = []
    for use in image.uses():
        conv = convolution(use.node)
        if conv is None or conv.groups != 1 or conv.weight.shape[1] != channel_count(spec.channels):
            return 0, contract
        if offsets.any() and any(conv.pads):
            return 0, contract
        convolutions.append(conv)
    for conv in convolutions:
        # The weight is (out, channels, height, width), the new one (out, 1, height, width).
        weight = np.einsum("oc...,c->o...", conv.weight, gains)[:, np.newaxis]
        added_bias = np.einsum("oc...,c->o...", conv.weight, offsets).reshape(len(weight), -1).sum(axis=1)  # (out,)
        replace(conv.node, reweighted(conv, weight, conv.bias + added_bias))
    image.shape = ir.Shape([image.shape[0] if image.shape else "batch", 1, *spec.size_hw])
    gray = with_fields(spec, channels="gray", mean=spec.mean[:1], std=spec.std[:1])
    return len(convolutions), with_fields(contract, input=gray)
