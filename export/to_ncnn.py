"""Export of a checkpoint to one .ncnn file.

The checkpoint is exported to ONNX, the ONNX model is converted by pnnx, and the file's logits are compared with
torch's. Only the program of pnnx is used, because importing its Python package loads torch's build tools.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import tempfile
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path
from typing import Literal, TypeAlias

import onnx
from torch import nn

from edgekit.contract import Contract, channel_count
from edgekit.device.engines.classifier import portrait_crops
from edgekit.device.engines.ncnn_engine import INPUT, OUTPUT, NcnnEngine, pack_ncnn, read_ncnn
from edgekit.errors import InputError, StorageError
from edgekit.export.profiling.cost import graph_cost
from edgekit.export.to_onnx import Exported, check_target, contract_of, convert
from edgekit.export.verification.comparison import check_export
from edgekit.files import atomic_path, sha256_of, write_atomic
from edgekit.install_hint import install_command
from edgekit.model_store import NCNN_SUFFIX
from edgekit.models.nets.registry import parameter_count
from edgekit.preprocess import ImageU8, to_input
from edgekit.text import one_line
from edgekit.tolerance import logit_faults, tolerance_for

NcnnPrecision: TypeAlias = Literal["fp32", "fp16"]

_TIMEOUT_S = 600
_FULL_PRECISION = "fp16=0"


def export_net_to_ncnn(
    net: nn.Module, contract: Contract, target: Path, passes: Collection[str], precision: NcnnPrecision
) -> Exported:
    """Export a net to an .ncnn file with its contract; equal nets and contracts give equal bytes.

    Args:
        net: Takes the contract's input and returns one logit per label.
        contract: The contract stored in the file.
        target: The .ncnn file.
        passes: Names of the rewrites; see `edgekit.export.targets`.
        precision: "fp16": ncnn computes in half floats where the processor has them. Then the float32 file is compared
            with torch, and the file in half floats with the float32 file.

    Raises:
        InputError: The net does not fit its contract, `target` does not end in .ncnn, pnnx is not installed or does not
            convert the net, or half floats change its results on this processor.
        GateError: The file's logits or top-1 differ from the net's; `target` is left unchanged.
        StorageError: The file cannot be written.
    """
    check_target(target, NCNN_SUFFIX)
    # Not condensed as in `export_net`: pnnx converts the gather operations of a condensed net wrongly.
    model, changed = convert(net, contract, passes)
    content = to_ncnn(model)
    with atomic_path(target) as temporary:
        temporary.write_bytes(content)
        try:
            verification = check_export(temporary, net, contract)
            if precision == "fp16":
                file = read_ncnn(temporary)
                content = pack_ncnn(replace(file.contract, precision="float16"), file.graph, file.weights)
                temporary.write_bytes(content)
                check_half_floats(temporary, portrait_crops(contract))
        except InputError as error:  # the message names the temporary file
            raise InputError(str(error).replace(str(temporary), str(target))) from error
        sha256, written = sha256_of(temporary), read_ncnn(temporary).contract
    return Exported(
        path=target,
        sha256=sha256,
        size_bytes=len(content),
        contract=written,
        verification=verification,
        net_parameters=parameter_count(net),
        cost=graph_cost(model),
        changed=changed,
    )


def to_ncnn(model: onnx.ModelProto) -> bytes:
    """Convert a float32 model from `edgekit.export.to_onnx` and return the content of its .ncnn file.

    Raises:
        InputError: pnnx is not installed or does not convert the net.
        StorageError: The disk of the temporary folder is full.
    """
    contract = contract_of(model)
    shape = (1, channel_count(contract.input.channels), *contract.input.size_hw)
    with tempfile.TemporaryDirectory(prefix="edgekit-pnnx-") as name:
        folder = Path(name)
        content = model.SerializeToString(deterministic=True)
        write_atomic(folder / "model.onnx", content)
        try:
            return _converted(folder, contract, shape)
        except InputError as error:
            # On a full disk, pnnx fails or writes incomplete files. It writes several files as large as `content`.
            if shutil.disk_usage(folder).free < len(content):
                raise StorageError(f"no space left in '{folder.parent}': free some, or set TMPDIR") from error
            raise


def _converted(folder: Path, contract: Contract, shape: tuple[int, ...]) -> bytes:
    """Convert `model.onnx` in a folder with pnnx, and return the content of its .ncnn file.

    `shape` is that of the input: (1, channels, H, W).
    """
    input_shape = f"inputshape=[{','.join(map(str, shape))}]f32"
    try:
        done = subprocess.run(
            [pnnx_program(), "model.onnx", input_shape, _FULL_PRECISION],
            cwd=folder,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            text=True,
            errors="replace",
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired as error:
        raise InputError(f"pnnx did not convert {contract.architecture} within {_TIMEOUT_S} s") from error
    graph, weights = folder / "model.ncnn.param", folder / "model.ncnn.bin"
    if done.returncode or not graph.exists() or not weights.exists():
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        reason = one_line(lines[-1])[:200]
        raise InputError(f"pnnx does not convert {contract.architecture} to ncnn: {reason}")
    # The contract of the new file: pnnx names input and output; the verified level is one of ONNX Runtime.
    spec, output = replace(contract.input, name=INPUT), replace(contract.output, name=OUTPUT)
    contract_of_file = replace(contract, input=spec, output=output, verified_level=None)
    try:
        return pack_ncnn(contract_of_file, graph.read_text(), weights.read_bytes())
    except InputError as error:
        raise InputError(f"{contract.architecture} cannot be exported to ncnn: in pnnx's output {error}") from error


def check_half_floats(path: Path, crops: ImageU8) -> None:
    """Check that a file has almost the same logits with half floats as with float32, on this processor.

    Args:
        path: An .ncnn file.
        crops: Crops in the file's input size: uint8 (N, H, W, 1 or 3).

    Raises:
        InputError: The logits differ by more than the tolerance.
    """
    # `half` has the precision in the file's contract, float16.
    half, full = NcnnEngine(path, intra_op_threads=1), NcnnEngine(path, intra_op_threads=1, precision="float32")
    tensor = to_input(crops, half.contract.input)
    faults = logit_faults(full.infer(tensor), half.infer(tensor), tolerance_for("float16", "ncnn"))
    if faults:
        raise InputError(f"model '{path}': half floats change its results on this processor: {'; '.join(faults)}")


def pnnx_program() -> Path:
    """Return the path of the program pnnx, which is in the folder of the Python package pnnx.

    Raises:
        InputError: pnnx is not installed.
    """
    spec = importlib.util.find_spec("pnnx")  # does not import it
    folders = spec.submodule_search_locations if spec else None
    program = Path(next(iter(folders))) / "pnnx" if folders else None
    if program is None or not program.exists():
        raise InputError(f"export to ncnn needs pnnx, which is not installed: {install_command('export', 'ncnn')}")
    return program
