"""`edgekit compare` and `edgekit report` from the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., tuple[int, str, str]]
RESULTS = Path(__file__).parents[3] / "benchmarks" / "results"


@pytest.fixture
def reference() -> dict[str, Any]:
    """A measured benchmark report."""
    return json.loads((RESULTS / "vm-epyc-2.json").read_text())  # type: ignore[no-any-return]


@pytest.fixture
def written(tmp_path: Path, reference: dict[str, Any]) -> Callable[[str, float], Path]:
    """Return a function that writes the reference report with multiplied medians and without quality flags."""

    def write(name: str, factor: float) -> Path:
        for cell in reference["boards"][0]["cells"]:
            middle = cell["latency"]["p50_ms"] = round(cell["latency"]["p50_ms"] * factor, 5)
            cell["median_interval_ms"] = [middle * 0.99, middle * 1.01]
            cell["marks"] = []
            for process in cell["processes"]:
                process["marks"] = []
        path = tmp_path / name
        path.write_text(json.dumps(reference))
        return path

    return write


def test_a_gate_refuses_with_exit_code_3_and_json_states_the_reason(
    edgekit: Run, written: Callable[[str, float], Path]
) -> None:
    before, after = written("a.json", 1), written("b.json", 1.2)
    code, out, err = edgekit("compare", before, after, "--gate", 10, "--json")
    assert code == 3
    document = json.loads(out)
    cells = [cell for board in document["boards"] for cell in board["cells"]]
    assert len(document["regressions"]) == len(cells) > 0
    assert {round(cell["ratio"], 3) for cell in cells} == {1.2}
    assert "slower by more than 10 %" in err
    assert edgekit("compare", before, after, "--gate", 30)[0] == 0
    assert edgekit("compare", before, after)[0] == 0
    assert edgekit("compare", after, before, "--gate", 0)[0] == 0


def test_another_board_is_refused_with_exit_code_2(
    edgekit: Run, written: Callable[[str, float], Path], reference: dict[str, Any]
) -> None:
    before = written("a.json", 1)
    reference["boards"][0]["board"]["model"] = "Raspberry Pi 5"
    after = written("b.json", 1)
    code, _, err = edgekit("compare", before, after)
    assert (code, len(err.splitlines())) == (2, 1)
    assert "--allow-different" in err
    code, out, _ = edgekit("compare", before, after, "--allow-different")
    assert code == 0
    assert "Raspberry Pi 5" in out.splitlines()[0]


def test_what_a_gate_cannot_judge_is_refused(edgekit: Run, written: Callable[[str, float], Path]) -> None:
    before = written("a.json", 1)
    after = written("b.json", 1)
    spoilt = json.loads(after.read_text())
    spoilt["boards"][0]["cells"][0]["marks"] = ["throttled"]
    after.write_text(json.dumps(spoilt))
    code, out, err = edgekit("compare", before, after, "--gate", 5)
    assert code == 2
    assert "throttled" in err
    assert "not judged: throttled: the board throttled while measuring: cool it" in out


def test_reports_are_merged_and_written(edgekit: Run, written: Callable[[str, float], Path], tmp_path: Path) -> None:
    one, two = written("a.json", 1), written("b.json", 2)
    report, page = tmp_path / "m.json", tmp_path / "m.html"
    code, out, _ = edgekit("report", one, two, "--json", "-o", report, "--html", page)
    assert code == 0
    merged = json.loads(report.read_text())
    assert merged == json.loads(out)
    assert len(merged["boards"]) == 2
    assert edgekit("report", one, one)[0] == 2
    assert page.read_text().count("<article>") == 2


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*.json")), ids=lambda path: path.stem)
def test_every_result_of_the_repository_follows_the_schema(path: Path) -> None:
    from edgekit.report.document import read_document
    from edgekit.report.view import virtualization_warning

    for board in read_document(path).boards:
        assert board.complete
        if "vm" in path.stem:
            assert "VIRTUAL MACHINE" in (virtualization_warning(board) or "")


def test_merged_boards_without_labels_are_named_after_their_files(
    edgekit: Run, reference: dict[str, Any], tmp_path: Path
) -> None:
    documents = {"kitchen.json": None, "garden.json": "shed", "old/kitchen.json": None}
    for name, label in documents.items():
        reference["boards"][0]["label"] = label
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(reference))
    kitchen, garden, old = (tmp_path / name for name in documents)
    for second, labels in ((garden, ["kitchen", "shed"]), (old, [f"{tmp_path}/kitchen", f"{tmp_path}/old/kitchen"])):
        code, out, error = edgekit("report", kitchen, second, "--json", "-o", tmp_path / "both.json")
        assert code == 0, error
        assert [board["label"] for board in json.loads(out)["boards"]] == [label[-64:] for label in labels]
        assert edgekit("compare", tmp_path / "both.json", tmp_path / "both.json")[0] == 0
    assert json.loads(edgekit("report", kitchen, "--json")[1])["boards"][0]["label"] is None
