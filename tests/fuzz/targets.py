"""Fuzz targets: the functions that read files of strangers and answers of the network, each with valid examples.

A target passes if it returns, or raises one of edgekit's own errors with one line of text. To add one, write a function
that takes the path of a file, and add it to `TARGETS` with its examples.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from edgekit.errors import EdgekitError
from tests.fuzz import network, structured
from tests.fuzz.mutate import mutated

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Target:
    """A function that reads a file with the given suffix.

    `make` returns an input from a seeded random generator. Reading takes at most `limit_s` seconds of processor time.
    """

    read: Callable[[Path], object]
    make: Callable[[random.Random], bytes]
    suffix: str = ""
    limit_s: int = 30


def of_examples(examples: Callable[[], list[bytes]]) -> Callable[[random.Random], bytes]:
    """Return a function that mutates one of the examples; the examples are computed once."""
    kept = cache(examples)
    return lambda choice: mutated(choice.choice(kept()), choice)


def _onnx(path: Path) -> None:
    import numpy as np

    from edgekit.device.engines.classifier import Classifier
    from edgekit.device.engines.session import has_contract, open_session
    from edgekit.export.profiling.cost import graph_cost, load_graph

    has_contract(open_session(path, 1, level="none"), path)
    graph_cost(load_graph(path))
    classifier = Classifier(path, 1)
    size_hw = classifier.contract.input.size_hw
    for count in (1, 2):
        classifier.probabilities(np.full((count, *size_hw, 3), 127, np.uint8))


def _make_onnx(choice: random.Random) -> bytes:
    from tests.edgekit.onnx_faults import changed

    return changed(choice)


def _checkpoint(path: Path) -> None:
    from edgekit.models.checkpoint import load_checkpoint
    from edgekit.models.clip.checkpoint import is_prompts_file, load_prompts
    from edgekit.models.model_loading import build_net

    load_prompts(path) if is_prompts_file(path) else build_net(load_checkpoint(path))


def _make_checkpoint(choice: random.Random) -> bytes:
    """Mutate only the header in most cases, because the weights have no structure."""
    content = (ROOT / "edgekit/assets/default.safetensors").read_bytes()
    end = 8 + int.from_bytes(content[:8], "little")
    if choice.random() < 0.2:
        return mutated(content, choice)
    header = mutated(content[8:end], choice)
    length = len(header) if choice.random() < 0.8 else choice.choice((0, len(header) + 9, 1 << 31, (1 << 63) + 1))
    return length.to_bytes(8, "little") + header + content[end:]


def _csv(path: Path) -> None:
    from edgekit.models.data.fer2013 import read_csv
    from edgekit.models.data.ferplus import read_votes

    for read in (lambda: read_csv(path, lambda image: image, lambda _, __: None), lambda: read_votes(path)):
        with suppress(EdgekitError):
            read()


def _csv_examples() -> list[bytes]:
    pixels = " ".join(map(str, range(256))) * 9
    votes = "Usage,Image name,neutral,happiness,surprise,sadness,anger,disgust,fear,contempt,unknown,NF\n"
    return [
        f"emotion,pixels,Usage\n0,{pixels},Training\n6,{pixels},PublicTest\n".encode(),
        f"{votes}Training,fer0000000.png,4,0,0,1,3,2,0,0,0,0\n".encode(),
    ]


def _archive(path: Path) -> None:
    from edgekit.models.data.readers import load_dataset

    load_dataset(path, 8)


TARGETS = {
    "onnx": Target(_onnx, _make_onnx, ".onnx"),
    "checkpoint": Target(_checkpoint, _make_checkpoint, ".safetensors"),
    "csv": Target(_csv, of_examples(_csv_examples), ".csv"),
    "archive": Target(_archive, structured.archive, ".tar"),
    "http-stream": Target(network.http_stream, of_examples(network.http_streams)),
    "web-request": Target(network.web_request, of_examples(network.web_requests)),
}
