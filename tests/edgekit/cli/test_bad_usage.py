"""Bad input of each command: one line with the cure, exit code 2, and no file is written or changed.

The folder wording has a transcript for each room: commands and their messages. `make wording` writes the messages.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

WORDING = Path(__file__).with_name("wording")
PROMPT = "$ edgekit "
# What stands in a transcript for the folder in which the commands run, and for what other libraries print.
PLACE = "/PLACE"
OF_LIBRARIES = re.compile(r"(?<=onnxruntime )[0-9.]+|(?<=\(\[ONNXRuntimeError]).*(?=\))|(?<=\(Error ).*?(?=\))")


def transcripts() -> dict[tuple[str, str], str]:
    """Return the message of each command of each transcript."""
    messages = {}
    for path in sorted(WORDING.glob("*.txt")):
        for entry in path.read_text().split(PROMPT)[1:]:
            words, _, message = entry.partition("\n")
            messages[path.stem, words] = message.strip()
    return messages


MESSAGES = transcripts()


@pytest.fixture(scope="module")
def place(
    draw_faces: Callable[..., Path], tiny_model: Path, tiny_image_model: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A folder with a data set, a model for faces, a model for whole images, and a text file."""
    folder = tmp_path_factory.mktemp("place")
    draw_faces(folder / "faces", {"train": 7, "val": 7})
    for model in (tiny_model, tiny_image_model):
        (folder / model.name).write_bytes(model.read_bytes())
    for suffix in ("onnx", "safetensors", "t7", "json"):
        (folder / f"text.{suffix}").write_text("this is text\n")
    return folder


@pytest.fixture(scope="module")
def printed() -> Iterator[dict[tuple[str, str], str]]:
    """The messages of all commands, in which a test replaces that of its command; `make wording` writes them."""
    messages = dict(MESSAGES)  # that of a command whose test fails stays
    yield messages
    if "EDGEKIT_WRITE_WORDING" in os.environ:
        for room in {room for room, _ in messages}:
            entries = [f"{PROMPT}{words}\n{text}\n" for (of_room, words), text in messages.items() if of_room == room]
            (WORDING / f"{room}.txt").write_text("\n".join(entries))


@pytest.mark.parametrize(("room", "words"), MESSAGES)
def test_bad_input_is_one_line_and_changes_nothing(
    edgekit: Run,
    place: Path,
    printed: dict[tuple[str, str], str],
    monkeypatch: pytest.MonkeyPatch,
    room: str,
    words: str,
) -> None:
    monkeypatch.chdir(place)
    before = content(place)
    code, out, err = edgekit(*shlex.split(words))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "secret-word" not in err
    assert content(place) == before
    printed[room, words] = OF_LIBRARIES.sub("…", err.strip().replace(str(place.resolve()), PLACE))
    if "EDGEKIT_WRITE_WORDING" not in os.environ:
        assert printed[room, words] == MESSAGES[room, words], "`make wording` writes the messages again"


def test_each_room_has_a_transcript() -> None:
    assert {room for room, _ in MESSAGES} == {"device", "edgekit", "export", "models"}


def content(folder: Path) -> dict[Path, int]:
    """Return the time of the last change of each file and folder."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
