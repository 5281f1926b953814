"""Model files by name: `default` and, where an installation has it, `distilled`; anything else is a path."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from edgekit.errors import InputError
from edgekit.files import require_file

ONNX_SUFFIX = ".onnx"
NCNN_SUFFIX = ".ncnn"
CHECKPOINT_SUFFIX = ".safetensors"
# What a device runs.
DEVICE_SUFFIXES = (ONNX_SUFFIX, NCNN_SUFFIX)
MODEL_SUFFIXES = (*DEVICE_SUFFIXES, CHECKPOINT_SUFFIX)
_SHIPPED_SUFFIXES = (ONNX_SUFFIX, CHECKPOINT_SUFFIX)

# `distilled` is a student of the CLIP chain.
SHIPPED = ("default", "distilled")
ASSETS = Path(__file__).parent / "assets"


def resolve_model(name: str, suffixes: tuple[str, ...] = MODEL_SUFFIXES) -> Path:
    """Return the path of a model given by name or path.

    Args:
        name: A shipped model's name, or a path.
        suffixes: The forms the caller takes, the preferred one first; a shipped name gives that form.

    Raises:
        InputError: No such file, or it is of another form.
    """
    if name in SHIPPED:
        path = ASSETS / f"{name}{suffixes[0]}"
        if not path.exists():
            there = ", ".join(shipped_models()) or "none"
            raise InputError(f"model '{name}' is not part of this installation: give a path or one it has ({there})")
        return require_file(path, "model")
    path = Path(name)
    if not path.exists():
        raise InputError(f"model '{name}' does not exist: give a path or one of: {', '.join(shipped_models())}")
    require_file(path, "model")
    if path.suffix not in suffixes:
        cure = " (others' checkpoints: 'edgekit import')" if CHECKPOINT_SUFFIX in suffixes else ""
        endings = " or ".join(filter(None, [", ".join(suffixes[:-1]), suffixes[-1]]))
        raise InputError(f"model '{name}' ends in '{path.suffix}': expected {endings}{cure}")
    return path


def shipped_models() -> tuple[str, ...]:
    """Return the names of the models this installation has, exported and as checkpoint."""
    return tuple(name for name in SHIPPED if all((ASSETS / f"{name}{suffix}").exists() for suffix in _SHIPPED_SUFFIXES))


def engine_extras(paths: Iterable[Path]) -> tuple[str, ...]:
    """Return the extras that running these files needs beside `edgekit[device]`."""
    return ("ncnn",) if any(path.suffix == NCNN_SUFFIX for path in paths) else ()


def asset(name: str) -> Path:
    """Return the path of a file shipped with the package.

    Raises:
        InputError: This installation lacks it.
    """
    return require_file(ASSETS / name, "shipped file")
