"""Finds models by name (those of `SHIPPED` that are installed) or by path."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgekit.errors import InputError
from edgekit.files import require_file

ONNX_SUFFIX = ".onnx"
NCNN_SUFFIX = ".ncnn"
CHECKPOINT_SUFFIX = ".safetensors"
# The checkpoint in the folder of a training.
BEST_NAME = f"best{CHECKPOINT_SUFFIX}"
# Models that the device can run.
DEVICE_SUFFIXES = (ONNX_SUFFIX, NCNN_SUFFIX)
MODEL_SUFFIXES = (*DEVICE_SUFFIXES, CHECKPOINT_SUFFIX)
_SHIPPED_SUFFIXES = (ONNX_SUFFIX, CHECKPOINT_SUFFIX)

# `default` is for faces in front of a camera, `fer2013` for comparisons on FER-2013; `distilled` is
# `default` in the space of a prompted CLIP.
SHIPPED = ("default", "fer2013", "distilled")
# Features of whole images for `edgekit teach`; it has no checkpoint.
BACKBONE = "backbone"
ASSETS = Path(__file__).parent / "assets"


def resolve_model(name: str, suffixes: tuple[str, ...] = MODEL_SUFFIXES) -> Path:
    """Return the path of a model given by name or path.

    Args:
        name: Name of a shipped model, path of a file, or the folder of a training, which stands for its checkpoint.
        suffixes: File formats that the caller reads; a shipped model is returned in the first one.

    Raises:
        InputError: The file does not exist or has another format.

    >>> resolve_model("default", DEVICE_SUFFIXES).name
    'default.onnx'
    """
    if name in (*SHIPPED, BACKBONE):
        return _shipped_path(name, suffixes)
    path = Path(name)
    if CHECKPOINT_SUFFIX in suffixes and path.is_dir():
        if not (path / BEST_NAME).exists():
            raise InputError(f"model '{name}' is a folder without {BEST_NAME}: give a file or the folder of a training")
        path = path / BEST_NAME
    elif path.is_dir() and (path / BEST_NAME).exists():  # the caller reads no checkpoints
        raise InputError(f"model '{name}' is the folder of a training: 'edgekit export {name}' writes its .onnx file")
    try:
        require_file(path, "model")
    except InputError as error:
        names = f"give a path or one of: {', '.join(shipped_models())}"
        raise InputError(str(error).replace("check the path", names)) from None
    if path.suffix not in suffixes:
        *first, last = suffixes
        endings = f"{', '.join(first)} or {last}" if first else last
        cure = _cure_of_suffix(path.suffix, suffixes)
        raise InputError(f"model '{name}' ends in '{path.suffix}': expected {endings}{cure}")
    return path


def _cure_of_suffix(suffix: str, expected: tuple[str, ...]) -> str:
    """Return the end of the error message for a file with a suffix that is not one of the `expected` ones."""
    if suffix == CHECKPOINT_SUFFIX:  # a checkpoint, where an exported file is expected
        return " ('edgekit export' writes one)"
    if CHECKPOINT_SUFFIX not in expected:  # any other file, where an exported file is expected
        return ""
    if suffix in DEVICE_SUFFIXES:  # an exported file, where a checkpoint is expected
        return ": give the checkpoint that the file was exported from, or the folder of its training"
    return " ('edgekit import' converts the authors' checkpoint)"  # such as .t7, where a checkpoint is expected


def _shipped_path(name: str, suffixes: tuple[str, ...]) -> Path:
    """Return the path of a shipped model in the first of these formats that is installed."""
    paths = [ASSETS / f"{name}{suffix}" for suffix in suffixes]
    installed_paths = [path for path in paths if path.exists()]
    if not installed_paths:
        installed = ", ".join(shipped_models()) or "none"
        raise InputError(f"model '{name}' is not part of this installation: give a path or one of: {installed}")
    return require_file(installed_paths[0], "model")


def shipped_models() -> tuple[str, ...]:
    """Return the names of the models that are installed both as .onnx and as .safetensors."""
    return tuple(name for name in SHIPPED if all((ASSETS / f"{name}{suffix}").exists() for suffix in _SHIPPED_SUFFIXES))


def engine_extras(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the extras of edgekit-pi, in addition to `device`, that the engines of these model files need."""
    return ("ncnn",) if any(path.suffix == NCNN_SUFFIX for path in paths) else ()


def asset(name: str) -> Path:
    """Return the path of a file that is shipped in `edgekit/assets`.

    Raises:
        InputError: The installation does not contain the file.
    """
    return require_file(ASSETS / name, "shipped file")
