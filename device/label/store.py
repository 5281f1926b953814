"""Collected crops and their labels. A decision moves a crop's file; the folder of the file is the state of the crop.

DIR/crops/NAME.png          waits for a decision
OUT/CLASS/NAME.png          labelled; OUT is DIR/labelled unless given
DIR/discarded/NAME.png      not usable
DIR/taught.onnx             the model that is taught from the labelled crops
OUT/groups.csv              path and group (track) of each labelled file, for splits that keep a track together; rows
                            are only appended, so that changes by hand and rows of other folders are kept
"""

from __future__ import annotations

import csv
import errno
import io
import shlex
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta

from edgekit.contract import Subject
from edgekit.device.sinks.crop_strategies import margin
from edgekit.device.sinks.picture_folder import CROPS_FILE, CROPS_FOLDER
from edgekit.device.teach.recordings import check_class
from edgekit.errors import ConflictError, InputError, StorageError
from edgekit.files import append_line, exclusive_folder, real_path, write_atomic
from edgekit.text import printable
from edgekit.typed_json import convert, parse_json


@dataclass
class CollectedCrop:
    """A collected crop, as its line of crops.jsonl describes it."""

    file: str
    probabilities: dict[str, Annotated[float, Meta(ge=0, le=1)]] = field(default_factory=dict)
    track: str | None = None
    time: str = ""
    label: str = ""
    subject: Subject = "face"

    @property
    def name(self) -> str:
        """File name, which identifies the crop."""
        return self.file.rpartition("/")[2]

    @property
    def group(self) -> str:
        """The track, or the crop itself without tracking: crops of a group get one label."""
        return self.track or self.name


def parse_crop(line: bytes) -> CollectedCrop | None:
    """Return the crop of a line of crops.jsonl; None if a power cut has damaged the line."""
    try:
        return convert(parse_json(line, "crop"), CollectedCrop, "crop field")
    except InputError:
        return None


def group_document(key: str, crops: list[CollectedCrop]) -> dict[str, Any]:
    """Return the JSON document of a group of crops for the page, the most uncertain crop first.

    `probabilities` is the mean over the crops. `margin` is the smallest difference of a crop's two largest
    probabilities. `suggestion` is the most probable class of the group or of a crop, None without probabilities.
    """
    labels = dict.fromkeys(label for crop in crops for label in crop.probabilities)  # each once
    mean = {label: sum(crop.probabilities.get(label, 0.0) for crop in crops) / len(crops) for label in labels}
    uncertain_first = sorted(crops, key=lambda crop: margin(crop.probabilities.values()))
    return {
        "key": key,
        "margin": round(margin(uncertain_first[0].probabilities.values()), 6),
        "suggestion": _suggestion(mean, crops),
        "probabilities": {label: round(value, 4) for label, value in mean.items()},
        "crops": [
            {
                "name": crop.name,
                "time": crop.time,
                "probabilities": crop.probabilities,
                "suggestion": _suggestion(crop.probabilities, [crop]),
            }
            for crop in uncertain_first
        ],
    }


def _suggestion(probabilities: Mapping[str, float], crops: Sequence[CollectedCrop]) -> str | None:
    """Return the most probable class; of equal ones, the label that most of the crops had in the run."""
    label_counts = Counter(crop.label for crop in crops)
    return max(probabilities, key=lambda label: (probabilities[label], label_counts[label]), default=None)


def move(source: Path, target: Path) -> bool:
    """Move a file, also to another disk; return False if `source` was deleted before.

    Raises:
        StorageError: The file cannot be moved.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            source.rename(target)
        except OSError as error:
            if error.errno != errno.EXDEV:  # EXDEV: the target is on another disk
                raise
            write_atomic(target, source.read_bytes())
            source.unlink()
    except OSError as error:
        if not source.exists():
            return False
        raise StorageError(f"cannot move '{source}' to '{target.parent}': {error.strerror or error}") from error
    return True


LABELLED_FOLDER = "labelled"
DISCARDED_FOLDER = "discarded"
GROUPS_FILE = "groups.csv"
TAUGHT_FILE = "taught.onnx"


@dataclass(frozen=True)
class Decision:
    """One decision: `files` are the crops that got the class `label`; None: they were discarded.

    `missing` are crops of the decision whose files were already deleted.
    """

    id: int
    label: str | None
    files: tuple[str, ...]
    missing: tuple[str, ...] = ()


class LabelStore:
    """The crops of one folder with their labels; not thread-safe.

    Attributes:
        version: Increases with every change, and with a restart.
    """

    def __init__(
        self,
        folder: Path,
        out: Path | None = None,
        classes: Sequence[str] = (),
        notify: Callable[[str], None] = warnings.warn,
    ) -> None:
        """Read `folder`, and continue where an earlier labelling ended.

        Args:
            folder: Folder of `edgekit run --collect`.
            out: Folder of the class folders; None: `folder`/labelled.
            classes: Classes to choose from; empty: those of the model that collected the crops.
            notify: Called with one line for each warning.

        Raises:
            InputError: The folder has no crops, or one of `classes` cannot be the name of a folder.
        """
        self.folder = folder
        self.out = _folder_of_labelled(folder, out)
        # Larger than that of any earlier process, whose page may still be open.
        self.version = int(1000 * time.time())
        self._notify = notify
        self._classes: list[str] = []
        self._has_given_classes = bool(classes)
        for name in classes:
            self.add_class(name)
        # All crops of crops.jsonl by name. Each is decided (in `_labels`), deleted (in `_missing`), or else waits.
        self._crops: dict[str, CollectedCrop] = {}
        self._labels: dict[str, str | None] = {}  # the class; None: discarded
        self._missing: set[str] = set()
        self._decisions: list[Decision] = []  # of this process, for `undo`
        self._last_id = 0
        self._index_bytes = 0  # how much of crops.jsonl is read
        self._read_placed()  # first, because `refresh` needs the earlier labels
        self.refresh()

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes to choose from."""
        return tuple(self._classes)

    def refresh(self) -> None:
        """Read the crops that were collected since the last call: the new complete lines of crops.jsonl."""
        path = self.folder / CROPS_FILE
        try:
            if path.stat().st_size < self._index_bytes:  # the file is a new one
                self._index_bytes = 0
            with path.open("rb") as stream:
                stream.seek(self._index_bytes)
                data = stream.read()
        except FileNotFoundError:
            return
        complete_bytes = data.rfind(b"\n") + 1  # without a line that a run is still writing; the next call reads it
        self._index_bytes += complete_bytes
        damaged = 0
        for line in data[:complete_bytes].splitlines():
            crop = parse_crop(line)
            if crop is None:
                damaged += 1
            elif crop.name not in self._crops:
                self._add_crop(crop)
        if damaged:
            self._notify(f"'{path}' has {damaged} damaged lines: they are skipped")

    def state(self) -> dict[str, Any]:
        """Return the document of the page: classes, counts, and the waiting crops in groups, uncertain ones first."""
        groups: dict[str, list[CollectedCrop]] = {}
        for name, crop in self._crops.items():
            if name not in self._labels and name not in self._missing:  # it waits for a decision
                groups.setdefault(crop.group, []).append(crop)
        documents = [group_document(key, crops) for key, crops in groups.items()]
        documents.sort(key=lambda group: group["margin"])  # difference of the two largest probabilities
        return {**self.summary(), "classes": self._classes, "groups": documents, "next": self.next_command()}

    def next_command(self) -> str:
        """Return the command that trains with the labelled crops."""
        return f"edgekit train --data {shlex.quote(printable(str(self.out)))} -o runs/mine"

    def teach(self) -> dict[str, Any]:
        """Fit a model on the labelled crops, write it to `TAUGHT_FILE`, and return its accuracy for the page.

        Raises:
            InputError: There are too few labelled crops.
            StorageError: The file cannot be written.
        """
        from edgekit.device.teach.teach import teach

        notes: list[str] = []
        subject: Subject = next((crop.subject for crop in self._crops.values()), "face")  # all crops have one subject
        taught = teach(self.out, output=self.folder / TAUGHT_FILE, subject=subject, notify=notes.append)
        low, high = taught.interval
        return {
            "accuracy": f"{taught.accuracy:.0%} of held-back pictures right ({low:.0%} to {high:.0%})",
            "notes": notes,
            "next": f"edgekit run --camera --web --model {shlex.quote(printable(str(taught.path)))}",
        }

    def summary(self) -> dict[str, Any]:
        """Return how many crops are in each state, and the latest decision, ready for JSON."""
        counts = Counter(label for label in self._labels.values() if label is not None)
        last = self._decisions[-1] if self._decisions else None
        return {
            "version": self.version,
            "total": len(self._crops),
            "waiting": len(self._crops) - len(self._labels) - len(self._missing),
            "discarded": sum(label is None for label in self._labels.values()),
            "missing": len(self._missing),
            "counts": {name: counts[name] for name in self._classes},
            "last": None if last is None else {"id": last.id, "label": last.label, "files": last.files},
        }

    def read_crop(self, name: str) -> bytes:
        """Return the PNG file of a crop, waiting or decided.

        Raises:
            InputError: There is no such crop, or its file was deleted.
        """
        if name not in self._crops:
            raise InputError(f"crop '{name}' does not exist")
        try:
            return self._place(name).read_bytes()
        except OSError as error:
            raise InputError(f"crop '{name}' was deleted") from error

    def decide(self, names: Sequence[str], label: str | None) -> Decision:
        """Move crops to the folder of a class, or to that of discarded crops, and return what was moved.

        A crop whose file was deleted is skipped.

        Args:
            names: File names of waiting crops.
            label: The class; None: discard.

        Raises:
            InputError: A crop or the class does not exist. Nothing is changed.
            ConflictError: A crop was decided before. Nothing is changed.
            StorageError: groups.csv cannot be written, and nothing is changed; or a file cannot be moved, and the files
                before it have been moved.
        """
        if label is not None and label not in self._classes:
            raise InputError(f"class '{label}' does not exist: choose one of {', '.join(self._classes)}")
        names = tuple(dict.fromkeys(names))  # each once
        if not names or any(name not in self._crops for name in names):
            raise InputError("the decision names a crop that does not exist: reload the page")
        if any(name in self._labels for name in names):
            raise ConflictError("this was decided on another page: nothing is changed")
        if label is not None:
            self._append_groups(names, label)  # before the files are moved, so that none is without its group
        moved: list[str] = []
        missing: list[str] = []
        try:
            for name in names:
                if move(self.folder / CROPS_FOLDER / name, self._folder_of(label) / name):
                    self._labels[name] = label
                    self._missing.discard(name)  # if the file was put back
                    moved.append(name)
                else:
                    self._missing.add(name)
                    missing.append(name)
        finally:  # after an error, too: what was moved before it can be undone
            self.version += 1
            decision = Decision(self._last_id + 1, label, tuple(moved), tuple(missing))
            if moved:  # otherwise there is nothing to undo, and the next decision gets this id
                self._last_id += 1
                self._decisions.append(decision)
        return decision

    def undo(self, decision_id: int) -> Decision:
        """Move the crops of the latest decision of this process back, and return the decision.

        A crop whose file was deleted is skipped; `missing` of the returned decision names it.

        Raises:
            ConflictError: The latest decision is not `decision_id`, but another one. Nothing is changed.
            StorageError: A file cannot be moved. The files before it have been moved; another `undo` continues.
        """
        if not self._decisions or self._decisions[-1].id != decision_id:
            raise ConflictError("the latest decision is another one: nothing is changed")
        decision = self._decisions[-1]
        missing = []
        for name in decision.files:
            if name not in self._labels:  # an `undo` that failed has moved it back
                continue
            if not move(self._place(name), self.folder / CROPS_FOLDER / name):
                self._missing.add(name)
                missing.append(name)
            del self._labels[name]
        self._decisions.pop()
        self.version += 1
        return Decision(decision.id, decision.label, decision.files, tuple(missing))

    def add_class(self, name: str) -> None:
        """Add a class to choose from.

        Raises:
            InputError: The name cannot be that of a folder, or differs from another class only in case.
        """
        check_class(name)
        for other in self._classes:
            if other == name:
                raise InputError(f"class '{name}' is given twice")
            if other.casefold() == name.casefold():  # one folder on some file systems
                raise InputError(f"classes '{other}' and '{name}' differ only in case: use one of them")
        self._classes.append(name)
        self.version += 1

    def _add_crop(self, crop: CollectedCrop) -> None:
        """Add a crop that was just read from crops.jsonl, with its decision by an earlier labelling.

        Without given classes, the user chooses from those of the model that collected the crop.
        """
        self._crops[crop.name] = crop
        self.version += 1
        if crop.name in self._placed:
            self._labels[crop.name] = self._placed[crop.name]
        elif not self._place(crop.name).is_file():  # deleted by hand: it is in no folder
            self._missing.add(crop.name)
        if not self._has_given_classes:
            for name in crop.probabilities:
                with suppress(InputError):  # offered already, or it cannot be the name of a folder
                    self.add_class(name)

    def _read_placed(self) -> None:
        """Set `_placed`: the label of each crop that an earlier labelling has moved. Add the classes of that labelling.

        The label of a discarded crop is None.
        """
        self._placed: dict[str, str | None] = {}
        for path in (self.folder / DISCARDED_FOLDER).glob("*.png"):
            self._placed[path.name] = None
        for path in sorted(self.out.glob("*/*.png")):
            label = path.parent.name
            if label.startswith("."):  # a hidden folder is no class
                continue
            if label not in self._classes:
                self.add_class(label)
            self._placed[path.name] = label

    def _append_groups(self, names: Sequence[str], label: str) -> None:
        """Append one row per crop with a new label to groups.csv, in one write; with the header if the file is new."""
        path, text = self.out / GROUPS_FILE, io.StringIO(newline="")
        path.parent.mkdir(parents=True, exist_ok=True)
        writer = csv.writer(text, lineterminator="\n")
        if not path.exists() or path.stat().st_size == 0:
            writer.writerow(("path", "group"))
        writer.writerows((f"{label}/{name}", self._crops[name].group) for name in names)
        append_line(path, text.getvalue().encode())

    def _place(self, name: str) -> Path:
        """Return the file of a crop, where its decision has moved it."""
        folder = self._folder_of(self._labels[name]) if name in self._labels else self.folder / CROPS_FOLDER
        return folder / name

    def _folder_of(self, label: str | None) -> Path:
        """Return the folder of a class; None: of the discarded crops."""
        return self.folder / DISCARDED_FOLDER if label is None else self.out / label


@contextmanager
def exclusive_store(
    folder: Path, out: Path | None, classes: Sequence[str], notify: Callable[[str], None]
) -> Iterator[LabelStore]:
    """Lock both folders of a `LabelStore` against other processes, and yield the store.

    `LabelStore` describes the arguments.

    Raises:
        InputError: As `LabelStore`.
        TemporaryError: Another process has locked one of the folders.
        StorageError: As `LabelStore`.
        OSError: The folder of the labelled crops cannot be created.
    """
    out = _folder_of_labelled(folder, out)
    with exclusive_folder(folder), exclusive_folder(out):
        yield LabelStore(folder, out, classes, notify)


def _folder_of_labelled(folder: Path, out: Path | None) -> Path:
    """Return the folder of the class folders: `out`, or by default `folder`/labelled.

    Raises:
        InputError: `folder` has no crops, or `out` is a file or one of the folders of the crops.
    """
    if not (folder / CROPS_FILE).is_file():
        raise InputError(f"'{folder}' has no {CROPS_FILE}: collect crops with edgekit run --collect {folder}")
    out = folder / LABELLED_FOLDER if out is None else out
    if out.exists() and not out.is_dir():
        raise InputError(f"'{out}' is a file: name a folder for the labelled crops")
    if real_path(out) in map(real_path, (folder, folder / CROPS_FOLDER, folder / DISCARDED_FOLDER)):
        raise InputError(f"'{out}' contains the collected crops: name another folder for the labelled ones")
    return out
