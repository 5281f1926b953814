"""Fuzz targets: the functions that read untrusted files and responses, each with valid examples.

A target passes if it returns, or raises one of edgekit's own errors with one line of text. To add one, write a function
that takes the path of a file, and add it to `TARGETS` with its examples.
"""

from __future__ import annotations

import io
import json
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

    return changed(choice.randrange(1 << 40))


def _ncnn(path: Path) -> None:
    from edgekit.device.engines.ncnn_engine import read_ncnn

    read_ncnn(path).layers()


def _ncnn_examples() -> list[bytes]:
    from edgekit.contract import Contract, CropSpec, InputSpec, OutputSpec
    from edgekit.device.engines.ncnn_engine import pack_ncnn

    size_hw = (8, 8)
    contract = Contract(
        "mean",
        ("red", "green", "blue"),
        InputSpec("in0", size_hw, "rgb", 1 / 255, (0.0,) * 3, (1.0,) * 3),
        CropSpec(0.0, False, size_hw, size_hw),
        OutputSpec("out0"),
    )
    mean = "7767517\n2 2\nInput in0 0 1 in0\nPooling mean 1 1 in0 out0 0=1 4=1\n"
    dense = "7767517\n3 3\nInput in0 0 1 in0\nPooling mean 1 1 in0 m 0=1 4=1\nInnerProduct d 1 1 m out0 0=3 1=1 2=9\n"
    return [pack_ncnn(contract, mean, b""), pack_ncnn(contract, dense, bytes(4 * 13))]


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


def _contract(path: Path) -> None:
    from edgekit.contract import Contract

    Contract.from_json(path.read_bytes().decode(errors="replace")).to_json()


def _contract_examples() -> list[bytes]:
    from edgekit.device.engines.engine import contract_in

    return [
        contract_in(ROOT / "edgekit/assets" / f"{name}.onnx").to_json().encode() for name in ("default", "distilled")
    ]


def _settings(path: Path) -> None:
    from edgekit.cli.commands.run import command
    from edgekit.cli.settings import read_settings

    read_settings(path, command)


def _settings_examples() -> list[bytes]:
    from edgekit.cli.commands.run import command
    from edgekit.cli.settings import render, values_in_effect

    words = ["--camera", "auto", "--jsonl", "r.jsonl", "--roi", "0,0,1,1", "--control", "A=1", "--smooth", "0.5"]
    with command.make_context("run", words) as context:
        whole = render(command, values_in_effect(command, context))
    return [whole.encode(), b'camera = "auto"\njsonl = "r.jsonl"\nmax-frames = 10\nlargest = true\ncontrol = ["A=1"]\n']


def _inventory(path: Path) -> None:
    from edgekit.remote.hosts import check_different, read_inventory

    check_different(read_inventory(path))


def _inventory_examples() -> list[bytes]:
    return [b'[[host]]\nhost = "pi@board"\nlabel = "door"\nport = 22\nidentity = "~/.ssh/id"\n[[host]]\nhost = "b"\n']


def _benchmark(path: Path) -> None:
    from edgekit.report.document import read_document
    from edgekit.report.page import to_html

    to_html(read_document(path))


def _benchmark_examples() -> list[bytes]:
    document = json.loads((ROOT / "benchmarks/results/vm-epyc-2.json").read_bytes())
    board = document["boards"][0]
    board["cells"] = board["cells"][:2]
    return [json.dumps(document).encode()]


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


def _hdf5(path: Path) -> None:
    from edgekit.models.data.fer2013 import read_hdf5

    read_hdf5(path, None)


def _hdf5_examples() -> list[bytes]:
    import h5py
    import numpy as np

    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        for usage in ("Training", "PublicTest"):
            file[f"{usage}_pixel"] = np.zeros((3, 8, 8), np.uint8)
            file[f"{usage}_label"] = np.arange(3)
    return [buffer.getvalue()]


def _archive(path: Path) -> None:
    from edgekit.models.data.readers import load_dataset

    load_dataset(path, 8)


def _crops(path: Path) -> None:
    """Read records of collected crops from a folder without images."""
    from edgekit.device.label.store import LabelStore

    folder = path.with_suffix(".folder")
    folder.mkdir(exist_ok=True)
    for name in ("crops.jsonl", "labels.jsonl"):
        (folder / name).write_bytes(path.read_bytes())
    LabelStore(folder, notify=lambda _: None)


def _crops_examples() -> list[bytes]:
    crop = {"file": "crops/a.png", "probabilities": {"happy": 0.5, "sad": 0.5}, "track": "1", "time": "2026-01-01"}
    decision = {"id": 1, "label": "happy", "files": ["crops/a.png"]}
    lines = [crop, crop | {"file": "crops/b.png"}, decision, {"undo": 1}]
    return ["".join(json.dumps(line) + "\n" for line in lines).encode()]


def _training_state(path: Path) -> None:
    from edgekit.models.training.record import load_state, state_fingerprint

    state_fingerprint(path)
    load_state(path, {"recipe": 1})


def _training_state_examples() -> list[bytes]:
    import tempfile

    import torch

    from edgekit.models.training.record import TrainingState, save_state

    tensors = {"weight": torch.zeros(20)}
    state = TrainingState({"recipe": 1}, tensors, tensors, {"state": {}}, 1, [{"epoch": 1}])
    with tempfile.TemporaryDirectory() as folder:
        save_state(Path(folder) / "last.pt", state)
        return [(Path(folder) / "last.pt").read_bytes()]


def _mqtt_buffer(path: Path) -> None:
    from edgekit.device.sinks.context import Account
    from edgekit.device.sinks.mqtt.spool import Spool

    spool = Spool(path, 100, Account("mqtt"), lambda _: None)
    try:
        spool.append("topic", "payload")
        spool.remove([message.number for message in spool.after(0, 50)])
    finally:
        spool.close()


def _mqtt_buffer_examples() -> list[bytes]:
    import tempfile

    from edgekit.device.sinks.context import Account
    from edgekit.device.sinks.mqtt.spool import Spool

    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder) / "mqtt.buffer", 100, Account("mqtt"), lambda _: None)
        for number in range(20):
            spool.append(f"edgekit/{number}", "{}" * 50)
        spool.close()
        return [(Path(folder) / "mqtt.buffer").read_bytes()]


TARGETS = {
    "onnx": Target(_onnx, _make_onnx, ".onnx"),
    "ncnn": Target(_ncnn, of_examples(_ncnn_examples), ".ncnn"),
    "checkpoint": Target(_checkpoint, _make_checkpoint, ".safetensors"),
    "ncnn-member": Target(_ncnn, lambda choice: structured.ncnn(cache(_ncnn_examples)(), choice), ".ncnn"),
    "checkpoint-entry": Target(_checkpoint, structured.checkpoint, ".safetensors"),
    "contract": Target(_contract, of_examples(_contract_examples)),
    "settings": Target(_settings, of_examples(_settings_examples), ".toml"),
    "inventory": Target(_inventory, of_examples(_inventory_examples), ".toml"),
    "benchmark": Target(_benchmark, of_examples(_benchmark_examples), ".json"),
    "csv": Target(_csv, of_examples(_csv_examples), ".csv"),
    "hdf5": Target(_hdf5, of_examples(_hdf5_examples), ".h5"),
    "hdf5-entry": Target(_hdf5, structured.hdf5, ".h5"),
    "archive": Target(_archive, structured.archive, ".tar"),
    "crops": Target(_crops, of_examples(_crops_examples), ".crops"),
    "training-state": Target(_training_state, of_examples(_training_state_examples), ".pt"),
    "mqtt-buffer": Target(_mqtt_buffer, of_examples(_mqtt_buffer_examples), ".buffer"),
    "http-stream": Target(network.http_stream, of_examples(network.http_streams)),
    "rtsp-stream": Target(network.rtsp_stream, of_examples(network.rtsp_streams)),
    "web-request": Target(network.web_request, of_examples(network.web_requests)),
    "webhook-answer": Target(network.webhook_answer, of_examples(network.webhook_answers)),
    "mqtt-answer": Target(network.mqtt_answer, of_examples(network.mqtt_answers)),
}
