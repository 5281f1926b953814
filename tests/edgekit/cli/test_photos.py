"""`edgekit data crop` and `edgekit eval --photos` from the command line."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.model_store import asset

Run = Callable[..., tuple[int, str, str]]
HAAR = ("--detector", "haar")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    portrait = cv2.imread(str(asset("astronaut.png")))
    folder = tmp_path / "photos"
    for name, image in (("happy/1.png", portrait), ("happy/2.png", portrait[:, ::-1]), ("sad/1.png", portrait[:50])):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        assert cv2.imwrite(str(folder / name), np.ascontiguousarray(image))
    return folder


def test_crop_reports_counts(edgekit: Run, photos: Path, tmp_path: Path) -> None:
    code, out, err = edgekit("data", "crop", photos, "-o", tmp_path / "crops", *HAAR)
    assert (code, err) == (0, "")
    assert re.search(rf"^crops +2 in {tmp_path}/crops: happy \(2\)$", out, re.MULTILINE)
    assert re.search("^no face +1 photographs$", out, re.MULTILINE)
    code, out, _ = edgekit("data", "crop", photos, "-o", tmp_path / "again", *HAAR, "--json")
    document = json.loads(out)
    assert (document["photographs"], document["crops"], document["without_face"]) == (3, 2, 1)
    assert document["per_folder"] == {"happy": 2}
    code, out, _ = edgekit("data", "crop", photos / "happy", "-o", tmp_path / "happy", *HAAR)
    assert out.splitlines()[1].endswith(f"2 in {tmp_path}/happy"), "without class folders"


def test_eval_measures_several_models_on_photographs(edgekit: Run, photos: Path) -> None:
    arguments = ("eval", "fer2013", "distilled", "--photos", photos, *HAAR, "--recall-of", "happy, sad")
    code, out, err = edgekit(*arguments, "--json")
    assert code == 0, err
    document = json.loads(out)
    assert [model["model"] for model in document["models"]] == ["fer2013", "distilled"]
    for model in document["models"]:
        assert (model["photographs"], model["with_face"], model["missed"], model["detector"]) == (3, 2, 1, "haar")
        assert model["missed_per_class"]["sad"] == 1
        assert (model["accuracy"], model["accuracy_with_face"]) == (2 / 3, 1.0)
        assert (model["mean_recall_of"], model["mean_recall_of_with_face"]) == (0.5, 1.0)
        assert model["confusion"][model["labels"].index("happy")][model["labels"].index("happy")] == 2
        assert 0 <= model["calibration_error"] <= 1
        assert model["risk_coverage"][0] == {"threshold": 0.0, "coverage": 1.0, "accuracy": 1.0}
        assert len(model["risk_coverage"]) == 20
    assert max(len(line.rstrip()) for line in err.splitlines() if line.startswith(("true class", "happy"))) <= 80
    assert re.search(r"threshold +coverage +accuracy\n0.3 +100.00% +100.00%\n0.4 ", err)
    assert re.search("^photographs +3: 2 with a face, 1 without, 0 with several", err, re.MULTILINE)
