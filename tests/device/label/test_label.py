"""The labelling page over HTTP: decisions, undo, conflicts, deleted crops, and access control."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgekit.device.engines.engine import contract_in
from edgekit.device.label.store import LabelStore
from edgekit.errors import StorageError
from edgekit.models.data.readers import load_dataset
from tests.device.label.crops import CLASSES, collect, set_fields
from tests.edgekit.remote.commands import call

TOKEN = "a-token-that-nobody-guesses"


def placed(folder: Path) -> dict[str, list[str]]:
    """Return the names of the crops in each folder."""
    found: dict[str, list[str]] = {}
    for path in sorted(folder.rglob("*.png")):
        found.setdefault(str(path.parent.relative_to(folder)), []).append(path.name)
    return found


def groups(folder: Path) -> list[str]:
    return (folder / "labelled" / "groups.csv").read_text().splitlines()


def test_groups_are_tracks_and_uncertain_ones_come_first(label, tmp_path):
    names = collect(tmp_path / "c", [2, 1, 3])
    state = label().state()
    assert [[crop["name"] for crop in group["crops"]] for group in state["groups"]] == [
        names[:2],
        names[2:3],
        names[3:],
    ]
    assert [group["suggestion"] for group in state["groups"]] == list(CLASSES)
    assert (state["total"], state["waiting"], state["classes"]) == (6, 6, list(CLASSES))


def test_one_decision_labels_a_track_and_training_reads_the_result(label, tmp_path):
    first, second, third = collect(tmp_path / "c", [2, 1])
    client = label()
    status, answer = client.post("/api/decide", files=[first, second], label="sad")
    assert (status, answer["gone"], answer["waiting"], answer["counts"]["sad"]) == (200, [], 1, 2)
    assert client.post("/api/decide", files=[third], label="happy")[0] == 200
    assert placed(tmp_path / "c") == {"labelled/happy": [third], "labelled/sad": [first, second]}
    assert groups(tmp_path / "c") == [
        "path,group",
        f"sad/{first},run-t0",
        f"sad/{second},run-t0",
        f"happy/{third},run-t1",
    ]
    data = load_dataset(tmp_path / "c" / "labelled")
    assert data.classes == ("happy", "sad")


def test_a_discarded_crop_leaves_the_data_and_undo_brings_it_back(label, tmp_path):
    first, second = collect(tmp_path / "c", [1, 1])
    client = label()
    answer = client.post("/api/decide", files=[first], label=None)[1]
    assert placed(tmp_path / "c") == {"crops": [second], "discarded": [first]}
    assert answer["discarded"] == 1
    status, answer = client.post("/api/undo", id=answer["last"]["id"])
    assert (status, answer["restored"], answer["waiting"], answer["last"]) == (200, [first], 2, None)
    assert placed(tmp_path / "c") == {"crops": [first, second]}


def test_undo_goes_back_decision_by_decision(label, tmp_path):
    names = collect(tmp_path / "c", [2, 1, 1])
    client = label()
    client.post("/api/decide", files=names[:2], label="sad")
    client.post("/api/decide", files=names[2:3], label="calm")
    client.post("/api/undo", id=2)
    state = client.state()
    assert (state["waiting"], state["counts"]) == (2, {"calm": 0, "happy": 0, "sad": 2})
    assert state["last"] == {"id": 1, "label": "sad", "files": names[:2]}
    assert client.post("/api/decide", files=names[3:], label="calm")[1]["last"]["id"] == 3
    assert client.post("/api/undo", id=3)[0] == 200
    assert client.post("/api/undo", id=1)[0] == 200
    assert placed(tmp_path / "c") == {"crops": names}


def test_a_restart_continues_with_the_crops_that_wait(label, tmp_path):
    names = collect(tmp_path / "c", [1, 1, 1])
    client = label()
    client.post("/api/decide", files=names[:1], label="sad")
    client.post("/api/decide", files=names[1:2], label=None)
    state = label().state()
    assert (state["waiting"], state["counts"]["sad"], state["discarded"], state["last"]) == (1, 1, 1, None)


def test_a_second_decision_on_a_crop_is_a_conflict_and_changes_nothing(label, tmp_path):
    first, second = collect(tmp_path / "c", [2])
    client = label()
    client.post("/api/decide", files=[first], label="sad")
    before = placed(tmp_path / "c")
    status, answer = client.post("/api/decide", files=[first, second], label="happy")
    assert status == 409
    assert [crop["name"] for group in answer["groups"] for crop in group["crops"]] == [second]
    assert placed(tmp_path / "c") == before
    assert client.post("/api/undo", id=7)[0] == 409
    assert placed(tmp_path / "c") == before


def test_crops_collected_meanwhile_appear(label, tmp_path):
    collect(tmp_path / "c", [1])
    client = label()
    version = client.state()["version"]
    assert client.request("GET", f"/api/state?version={version}") == (204, b"")
    collect(tmp_path / "c", [1], prefix="later")
    status, body = client.request("GET", f"/api/state?version={version}")
    assert (status, json.loads(body)["waiting"]) == (200, 2)


def test_classes_are_given_added_and_kept(label, tmp_path):
    first, second = collect(tmp_path / "c", [1, 1])
    client = label(classes=("open", "closed"))
    assert client.state()["classes"] == ["open", "closed"]
    assert client.post("/api/decide", files=[first], label="sad")[0] == 400
    assert client.post("/api/classes", name="ajar")[1]["classes"] == ["open", "closed", "ajar"]
    assert client.post("/api/decide", files=[first], label="ajar")[0] == 200
    assert client.post("/api/decide", files=[second], label="open")[0] == 200
    assert label(classes=("open", "closed")).state()["classes"] == ["open", "closed", "ajar"]


@pytest.mark.parametrize("name", ["", "..", "a/b", "Happy"])
def test_a_class_that_cannot_be_a_folder_of_its_own_is_refused(label, tmp_path, name):
    collect(tmp_path / "c", [1])
    status, answer = label().post("/api/classes", name=name)
    assert status == 400
    assert "class" in answer["error"]
    assert answer["classes"] == list(CLASSES)


def test_only_collected_crops_are_served_and_moved(label, tmp_path):
    collect(tmp_path / "c", [1])
    (tmp_path / "c/crops/x.png").write_bytes(b"not in the index")
    (tmp_path / "secret.png").write_bytes(b"x")
    client = label()
    for name in ("..%2fcrops.jsonl", "%2e%2e%2fcrops.jsonl", "../crops.jsonl", "crops.jsonl", "x.png"):
        assert client.request("GET", f"/crop/{name}")[0] == 404
    assert client.post("/api/decide", files=["../../secret.png"], label="sad")[0] == 400
    assert (tmp_path / "secret.png").exists()


def test_a_line_that_names_a_file_elsewhere_shows_no_file(label, tmp_path, notices):
    (name,) = collect(tmp_path / "c", [1])
    with (tmp_path / "c/crops.jsonl").open("a") as index:
        index.write('{"file": "crops/../../secret.png"}\n{"file": "/etc/x.png"}\nnot json\n')
    client = label()
    assert [crop["name"] for group in client.state()["groups"] for crop in group["crops"]] == [name]
    assert len(notices) == 1


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Content_Type": "text/plain"}, 403),
        ({"Content_Type": "application/json", "Origin": "https://evil.example"}, 403),
        ({"Content_Type": "application/json", "Origin": "null"}, 403),
        ({"Content_Type": "application/json", "Host": "evil.example"}, 421),
    ],
)
def test_other_sites_can_change_nothing(label, tmp_path, headers, status):
    (name,) = collect(tmp_path / "c", [1])
    body = json.dumps({"files": [name], "label": "sad"})
    assert label().request("POST", "/api/decide", body, **headers)[0] == status
    assert placed(tmp_path / "c") == {"crops": [name]}


def test_a_token_is_required_where_there_is_one(label, tmp_path):
    (name,) = collect(tmp_path / "c", [1])
    client = label(TOKEN)
    for path in ("/api/state", f"/crop/{name}", "/label.js"):
        assert client.request("GET", path)[0] == 401
    body = json.dumps({"files": [name], "label": "sad"})
    assert client.request("POST", "/api/decide", body, Content_Type="application/json")[0] == 401
    assert client.request("GET", "/api/state", Authorization=f"Bearer {TOKEN}")[0] == 200


def test_a_full_disk_loses_no_crop_and_labelling_continues_after_it(small_disk, fill):
    first, second = collect(small_disk / "c", [1, 1])
    store = LabelStore(small_disk / "c")
    ballast = fill(small_disk)
    with pytest.raises(StorageError):
        store.decide([first], "sad")
    assert sorted(path.name for path in (small_disk / "c").rglob("*.png")) == [first, second]
    ballast.unlink()
    store = LabelStore(small_disk / "c")
    if store.summary()["waiting"] == 2:
        store.decide([first], "sad")
    assert groups(small_disk / "c") == ["path,group", f"sad/{first},run-t0"]
    store.decide([second], "sad")
    assert placed(small_disk / "c") == {"labelled/sad": [first, second]}
    assert groups(small_disk / "c") == ["path,group", f"sad/{first},run-t0", f"sad/{second},run-t1"]


def test_a_table_of_groups_that_exists_is_continued(label, tmp_path):
    """A user edits the table so that all tracks of a person have one group, and labels two folders into one."""
    names = collect(tmp_path / "c", [1, 1])
    table = tmp_path / "c" / "labelled" / "groups.csv"
    table.parent.mkdir()
    table.write_text("path,group\nsad/other.png,someone\n")
    for name in names:
        label().post("/api/decide", files=[name], label="sad")
        table.write_text(table.read_text().replace("run-t0", "Ann"))
    assert groups(tmp_path / "c")[1:] == ["sad/other.png,someone", f"sad/{names[0]},Ann", f"sad/{names[1]},run-t1"]


@pytest.mark.parametrize("name", ["", "crops"])
def test_labelled_crops_do_not_go_among_those_that_wait(tmp_path, name):
    (crop,) = collect(tmp_path / "c", [1])
    done = call("data", "label", tmp_path / "c", "-o", tmp_path / "c" / name, "--web", "127.0.0.1:0")
    assert done.returncode == 2
    assert placed(tmp_path / "c") == {"crops": [crop]}


@pytest.mark.parametrize("subject", [None, "face", "image"])
def test_a_model_is_taught_from_the_labelled_crops(subject: str | None, label, tmp_path: Path) -> None:
    folder = tmp_path / "c"
    names = collect(folder, [2, 2, 2, 2])
    if subject is not None:  # edgekit 0.2 wrote no subject: its crops are faces
        set_fields(folder, subject=subject)
    client = label()
    assert client.post("/api/teach")[0] == 400, "nothing is labelled yet"
    assert not (folder / "taught.onnx").exists()
    for first, name in ((0, "sad"), (2, "happy"), (4, "sad"), (6, "happy")):
        client.post("/api/decide", files=names[first : first + 2], label=name)
    assert client.request("POST", "/api/teach", "{}", Content_Type="text/plain")[0] == 403
    status, answer = client.post("/api/teach")
    assert (status, str(folder / "taught.onnx") in answer["next"]) == (200, True)
    contract = contract_in(folder / "taught.onnx")
    assert (set(contract.labels), contract.subject) == ({"happy", "sad"}, subject or "face")
