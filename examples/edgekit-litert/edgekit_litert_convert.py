"""Converts a checkpoint to a .tflite file by litert-torch, with float32 weights.

python -m edgekit_litert_convert default mine.tflite          # float32 pixels
python -m edgekit_litert_convert default mine.tflite --uint8  # the scaling of pixels is part of the net
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from edgekit_litert import pack
from torch import nn

from edgekit.contract import Contract, InputSpec, channel_count
from edgekit.errors import EdgekitError
from edgekit.files import write_atomic
from edgekit.model_store import CHECKPOINT_SUFFIX, resolve_model
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.model_loading import build_net


class ScalesPixels(nn.Module):
    """A net behind the scaling of its pixels, as `edgekit.preprocess.to_tensor` computes it."""

    def __init__(self, net: nn.Module, spec: InputSpec) -> None:
        super().__init__()
        self.net, self.scale = net, spec.scale
        self.register_buffer("mean", torch.tensor(spec.mean).reshape(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).reshape(1, -1, 1, 1))

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        """Return the logits of uint8 pixels (N, channels, H, W)."""
        return self.net((pixels.float() * self.scale - self.mean) / self.std)


def convert(net: nn.Module, contract: Contract, takes_uint8: bool = False) -> bytes:
    """Return the .tflite file of a net in evaluation mode, with its contract."""
    import litert_torch  # takes seconds

    spec, element_type = contract.input, torch.float32
    if takes_uint8:
        net, element_type = ScalesPixels(net, spec), torch.uint8
        contract = replace(contract, input=replace(spec, element_type="uint8"))
    image = torch.zeros(1, channel_count(spec.channels), *spec.size_hw, dtype=element_type)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.tflite"
        litert_torch.convert(net.eval(), (image,)).export(str(path))
        return pack(path.read_bytes(), replace(contract, verified_level=None))


def _main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", help="a .safetensors checkpoint, or a shipped model's name")
    parser.add_argument("output", type=Path, help="the .tflite file to write")
    parser.add_argument("--uint8", action="store_true", help="the file takes uint8 pixels")
    given = parser.parse_args()
    try:
        checkpoint = load_checkpoint(resolve_model(given.model, (CHECKPOINT_SUFFIX,)))
        write_atomic(given.output, convert(build_net(checkpoint), checkpoint.contract, given.uint8))
    except EdgekitError as error:
        print(f"edgekit: error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(_main())
