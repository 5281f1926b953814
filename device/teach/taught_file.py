"""The file of a taught model, the one before it, and whether a run begins with it.

    my.onnx             the taught model in use
    my-before.onnx      the model before, for one step back
    my-exchange.onnx    the model in use, while `exchange` runs; it is left only by a power cut
    my-original-*.onnx  each model of another origin that a taught one has replaced
    my.json             the SHA-256 of the model that was in use when the first one was taught, and of the taught ones
    my-pictures/        the recorded pictures

A deploy or a rollback brings a model of its own, with another SHA-256: then the run begins with that model. After a
rollback to the model in whose place it was taught, the taught one is used again.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from edgekit.errors import InputError, StorageError
from edgekit.files import atomic_path, sha256_of, sync, write_atomic
from edgekit.typed_json import parse_json


class TaughtFile:
    """The taught model at `path`, in the place of the model `base`.

    Attributes:
        path: The file.
        base: The model that is used without a taught one.
        is_for_any: Whether the file is used whatever `base` is.
    """

    def __init__(self, path: Path, base: Path, *, is_for_any: bool = False) -> None:
        """Find out whether the file is to be used: whether it was taught in the place of `base`.

        Args:
            path: The .onnx file, which need not exist.
            base: The model that is used without a taught one.
            is_for_any: Use the file in any case.

        Raises:
            InputError: The file does not end in .onnx, or `base` does not exist.
        """
        if path.suffix != ".onnx":
            raise InputError(f"'{path}' does not end in .onnx: a taught model is an .onnx file")
        self.path = path
        self.base = base
        self.is_for_any = is_for_any
        # The files my-before.onnx, my-exchange.onnx and my.json (see the module).
        self._before = path.with_name(f"{path.stem}-before{path.suffix}")
        self._aside = path.with_name(f"{path.stem}-exchange{path.suffix}")
        self._record = path.with_suffix(".json")
        self._end_interrupted_exchange()
        self._is_for_base = is_for_any or self._recorded().get("instead_of") == sha256_of(base)

    @property
    def pictures(self) -> Path:
        """The folder of the recorded pictures."""
        return self.path.with_name(f"{self.path.stem}-pictures")

    @property
    def is_used(self) -> bool:
        """Whether a taught model is in use."""
        return self._is_for_base and self.path.is_file()

    @property
    def current(self) -> Path:
        """The model to use: the taught one, or `base`."""
        return self.path if self.is_used else self.base

    @property
    def has_before(self) -> bool:
        """Whether there is a model to which `exchange` goes back."""
        return self._is_for_base and (self.path.is_file() or self._before.is_file())

    def store(self, write: Callable[[Path], object]) -> None:
        """Replace the taught model by the file that `write` writes; the replaced one becomes the model before.

        If the new file equals the one in use, the model before stays. If `base` was in use, there is no model before.

        Raises:
            StorageError: The disk fails. my-before.onnx may already be a copy of my.onnx. If only my.json cannot be
                written, my.onnx is already the new model.
        """
        with atomic_path(self.path) as new:
            write(new)
            new_sha256 = sha256_of(new)
            # Here `self.path` is still the old model.
            taught = self._save_foreign_models(new_sha256)  # SHA-256 of the old models that were taught here
            if not self.is_used:  # `base` is in use
                self._before.unlink(missing_ok=True)
            elif sha256_of(self.path) != new_sha256:
                write_atomic(self._before, self.path.read_bytes())
        write_atomic(self._record, json.dumps({"instead_of": sha256_of(self.base), "taught": [*taught, new_sha256]}))
        self._is_for_base = True

    def _save_foreign_models(self, new_sha256: str) -> list[str]:
        """Save the models that are to be replaced and that were not taught here, such as one that the user has copied.

        Returns:
            The SHA-256 of the other models: those that were taught here.
        """
        recorded = self._recorded().get("taught", ())
        taught = []
        for path in (self.path, self._before):
            if not path.is_file():
                continue
            sha256 = sha256_of(path)
            if sha256 in recorded:
                taught.append(sha256)
            elif sha256 != new_sha256:  # otherwise the new file has the same content
                original = f"{self.path.stem}-original-{sha256[:8]}{self.path.suffix}"
                write_atomic(self.path.with_name(original), path.read_bytes())
        return taught

    def exchange(self) -> None:
        """Go back to the model before: a taught one, or `base`; a second call goes forward again.

        Raises:
            InputError: There is no model before.
            StorageError: The disk fails.
        """
        if not self.has_before:
            raise InputError("there is no model before this one")
        # The two files change places. One of them may be missing, which stands for `base`. Renaming keeps both models
        # on the disk at each moment, so that a power cut loses none (`_end_interrupted_exchange`).
        try:
            for old, new in ((self.path, self._aside), (self._before, self.path), (self._aside, self._before)):
                if old.is_file():
                    old.replace(new)
            sync(self.path.parent)
        except OSError as error:
            raise StorageError(f"cannot exchange '{self.path}' and '{self._before}': {error.strerror}") from error

    def _end_interrupted_exchange(self) -> None:
        """Undo an exchange that a power cut ended before the model before was in place, or complete it afterwards."""
        if self._aside.is_file():
            with suppress(OSError):  # such as a read-only disk: both models stay where they are
                self._aside.replace(self._before if self.path.is_file() else self.path)

    def _recorded(self) -> dict[str, Any]:
        """Return the content of the file my.json (see the module); empty if the file is missing or damaged."""
        try:
            document = parse_json(self._record.read_bytes(), "the record")
        except (OSError, InputError):
            return {}
        return document if isinstance(document, dict) else {}
