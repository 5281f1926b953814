"""Contact sheets of errors show the wrong images of each class, the most confident first."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgekit.errors import InputError, StorageError
from edgekit.models.evaluation import error_sheets
from edgekit.models.evaluation.error_sheets import save_errors
from edgekit.models.evaluation.evaluate import Evaluation
from edgekit.models.evaluation.run import evaluate


def test_the_wrong_images_of_each_class_are_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = np.array([[3, 0], [0, 1], [0, 2], [9, 0]], np.float32)  # right, wrong, wrong, right
    images = np.arange(4, dtype=np.uint8)[:, None, None, None] * np.ones((1, 8, 8, 1), np.uint8)
    drawn = []
    save_sheet = error_sheets.save_sheet
    monkeypatch.setattr(error_sheets, "save_sheet", lambda *given: drawn.append(given) or save_sheet(*given))
    paths = save_errors(tmp_path / "sheets", images, Evaluation(("a", "b"), np.array([0, 0, 0, 0]), logits))
    assert [path.name for path in paths] == ["0-a.png"]  # class b has no errors
    assert paths[0].stat().st_size > 0
    [(_, title, subtitle, tiles, _)] = drawn
    assert (title, subtitle.split(";")[0]) == ("a", "2 of 4 images wrong")
    assert [int(image[0, 0, 0]) for image, _ in tiles] == [2, 1]  # the more confident error first
    assert {mark[0] for _, mark in tiles} == {"b"}


def test_a_folder_that_cannot_be_written_is_reported_before_the_model_is_opened(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="choose another place"):
        evaluate("absent", "absent", errors=tmp_path / "file/sheets")
    for folder, message in (("file", "is a file"), ("data/sheets", "where sheets would be images")):
        (tmp_path / "data").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=message):
            evaluate("absent", tmp_path / "data", errors=tmp_path / folder)
