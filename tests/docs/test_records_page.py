"""The page of the records lists exactly the fields that a run writes."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest

from edgekit.device.health.sampler import read_health
from edgekit.device.sinks.events import Event
from edgekit.device.sinks.monitor import Monitor
from edgekit.device.sinks.mqtt import discovery
from edgekit.device.sinks.mqtt.sink import state_document
from tests.docs.pages import DOCS, ROOT, section
from tests.edgekit.remote.commands import call
from tools import reference_pages

PAGE = reference_pages.records()


def fields(title: str, table: int = 0) -> set[str]:
    """Return the names in the first column of a table of a section."""
    tables = re.findall(r"^(?:\|.*\n)+", section(PAGE, title), re.MULTILINE)
    rows = [line.split("|")[1] for line in tables[table].splitlines()[2:]]
    return {name for row in rows for name in re.findall(r"`(\w+)`", row)}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the outputs of a run on one image."""
    folder = tmp_path_factory.mktemp("run")
    (folder / "images").mkdir()
    shutil.copy(ROOT / "edgekit/assets/astronaut.png", folder / "images")
    options = ("--detector", "haar", "--jsonl", folder / "r.jsonl", "--csv", folder / "r.csv")
    options += ("--zone", "all=0,0,1,0,1,1,0,1")
    done = call("run", "--source", folder / "images", *options)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_fields_of_a_frame_and_of_a_face(run: Path) -> None:
    frame = json.loads((run / "r.jsonl").read_text())
    # The first two are in some frames only, the third in those of a video, the last two in those of whole-image models.
    assert set(frame) | {"health", "clock_synchronised", "position_s", "subject", "results"} == fields("A frame")
    # `distance` is in those of taught models only.
    assert set(frame["faces"][0]) | {"distance"} == fields("A face")


def test_the_columns_of_a_csv(run: Path) -> None:
    header = next(csv.reader((run / "r.csv").read_text().splitlines()))
    columns = {re.sub("^(p|raw_p)_.*", r"\1_CLASS", name) for name in header}
    listed = set(re.findall(r"`(\w+)`", section(PAGE, "A face").partition("\n|")[0]))
    replaced = {"xyxy", "probabilities", "raw_probabilities", "detected"}
    assert columns | {"distance", "position_s"} == (fields("A face") | listed) - replaced


def test_the_fields_of_an_event() -> None:
    event = Event(
        *("a-1", 1, "happy", None, 0.9, 1.0, 7, 1.5, 2.5),
        snapshot="a.jpg",
        clip="a.mp4",
        clock_synchronised=False,
        zone="door",
    )
    assert set(event.as_document()) | {"snapshot_jpeg"} == fields("An event")


def test_the_fields_of_the_state(tmp_path: Path) -> None:
    document = Monitor("demo", lambda: read_health(tmp_path)).document()
    assert set(state_document(document, ["door"], is_current=True)) == fields("State")
    # The web server adds two fields.
    assert set(document) | {"viewers", "stalled"} == fields("State", table=1)
    assert set(document["health"]) == fields("Health")


def test_the_topics() -> None:
    code = "".join(path.read_text() for path in Path(discovery.__file__).parent.glob("*.py"))
    named = set(re.findall(r'topic}/([a-z-]+)"', code)) - {"command"}  # the run receives this one
    listed = re.findall(r"^\| `TOPIC/([\w-]+)`", (DOCS / "how-to/mqtt.md").read_text(), re.MULTILINE)
    assert set(listed) == named | set(discovery.IMAGES) | {"state", "health"}
