"""Both sides of the training-speed comparison compute the same losses."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import nn

from edgekit.model_store import resolve_model
from edgekit.models.checkpoints.checkpoint import Checkpoint, load_checkpoint


@pytest.fixture
def default() -> Checkpoint:
    return load_checkpoint(resolve_model("default", (".safetensors",)))


def counted_runs(net: nn.Module) -> list[str]:
    """Return a list that gets an entry each time the net computes the first half of its first dense layer."""
    ran: list[str] = []
    name, module = next((name, module) for name, module in net.named_modules() if name.endswith("expand_norm"))
    module.register_forward_hook(lambda *_: ran.append(name))
    return ran


# The order of torch's sums depends on the memory layout.
@pytest.mark.parametrize(("layout", "tolerance"), [(torch.channels_last, 1e-4), (torch.contiguous_format, 1e-3)])
def test_both_sides_compute_the_same_and_only_theirs_computes_twice(
    load: Callable[[str], ModuleType], default: Checkpoint, layout: torch.memory_format, tolerance: float
) -> None:
    speed = load("training_speed")
    ours, theirs = speed.our_side(default, "fp32"), speed.their_side(default, "fp32", layout)
    assert ours._net.stem.weight.is_contiguous(memory_format=torch.channels_last)
    assert theirs._net.stem.weight.is_contiguous(memory_format=layout)
    runs = [counted_runs(side._net) for side in (ours, theirs)]
    for batch in speed.make_batches(default, 2, 8):
        torch.testing.assert_close(ours.step(batch), theirs.step(batch), rtol=tolerance, atol=0)
    assert [len(ran) for ran in runs] == [2, 4]
