"""Options that commands of several rooms have; the arguments of each function are those of `option`."""

from __future__ import annotations

from typing import Any

from edgekit.options import option

# Upper limit far above any useful value; torch and OpenMP abort on absurd ones.
MAX_THREADS = 1024
MAX_SEED = 2**32 - 1


def threads(**more: Any) -> Any:
    """Return the field of --threads."""
    text = "CPU threads of each net. Default: chosen for this machine."
    more.setdefault("section", "Machine")
    return option("--threads", text, metavar="N", least=1, most=MAX_THREADS, **more)


def contempt(**more: Any) -> Any:
    """Return the field of --contempt."""
    text = "Images of contempt, the eighth expression of CK+: drop them, keep them, or count them as CLASS."
    return option("--contempt", text, default="drop", metavar="drop|keep|CLASS", **more)


def merges(**more: Any) -> Any:
    """Return the field of --merge."""
    text = "Merge old classes into a new one. Classes that no --merge names are removed. Repeatable."
    return option("--merge", text, default=(), metavar="NEW=OLD,OLD", **more)


def detector(**more: Any) -> Any:
    """Return the field of the option --detector, for the data classes of options; `more` are arguments of `option`."""
    text = (
        "Face detector: yunet (its file is downloaded once), haar, none (each frame is one face), or the path of "
        "YuNet's .onnx file. Default: yunet, or none for a model of whole images."
    )
    return option("--detector", text, metavar="NAME|FILE", parse=str, **more)


def min_face_px(**more: Any) -> Any:
    """Return the field of --min-face."""
    text = (
        "Find faces from this size on, in pixels, and discard smaller ones. Smaller values find more faces and take "
        "more time. 0: the detector scales the image to a longer side of 320 pixels."
    )
    return option("--min-face", text, default=0, metavar="PX", least=0, most=100_000, **more)
