"""The cache computes each view once, detects damaged files, and continues after an interruption."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest

from edgekit.errors import InputError
from edgekit.models.data import DataSet
from edgekit.models.distill import cache
from edgekit.models.distill.cache import agreement, distillation_targets
from edgekit.models.distill.teachers import Teacher, TeacherOutputs, ensemble, mean_of_probabilities
from edgekit.models.distill.views import Views, cut_views, view_count
from edgekit.preprocess import ImageU8

Make = Callable[..., Any]


@pytest.fixture
def images(bars: DataSet) -> ImageU8:
    return bars.splits["Training"].images


@pytest.fixture(autouse=True)
def _small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache, "_IMAGES_PER_FILE", 20)
    monkeypatch.setattr(cache, "_CROPS_PER_BATCH", 16)


def files(folder: Path) -> list[Path]:
    return sorted(folder.rglob("*.safetensors"))


def test_a_second_training_does_not_run_the_teacher(bar_teacher: Make, images: ImageU8, tmp_path: Path) -> None:
    bars = bar_teacher(embeds=True)
    first = distillation_targets(bars.teacher(), images, "center-flip", tmp_path)
    assert bars.crops_seen == 2 * len(images)
    second = distillation_targets(bars.teacher(), images, "center-flip", tmp_path)
    assert bars.crops_seen == 2 * len(images)
    assert np.array_equal(first.logits, second.logits)
    assert first.embeddings is not None
    assert second.embeddings is not None
    assert np.array_equal(first.embeddings, second.embeddings)
    np.testing.assert_allclose(np.linalg.norm(second.embeddings, axis=1), 1, atol=1e-6)
    assert len(files(tmp_path)) == 3


def test_outputs_are_cached_in_any_memory_layout(bar_teacher: Make, images: ImageU8, tmp_path: Path) -> None:
    from dataclasses import replace

    bars = bar_teacher()
    plain = bars.teacher()

    def predict(crops: ImageU8) -> TeacherOutputs:
        return TeacherOutputs(np.asfortranarray(plain.predict(crops).logits))

    first = distillation_targets(replace(plain, predict=predict), images, "center-flip", tmp_path)
    seen = bars.crops_seen
    assert np.array_equal(first.logits, distillation_targets(plain, images, "center-flip", tmp_path).logits)
    assert bars.crops_seen == seen


def test_another_teacher_view_label_order_or_image_is_another_key(
    bar_teacher: Make, images: ImageU8, tmp_path: Path
) -> None:
    from dataclasses import replace

    bars = bar_teacher()
    distillation_targets(bars.teacher(), images, "center", tmp_path)
    changed = images.copy()
    changed[-1, 0, 0] += 1
    others: list[tuple[Teacher, ImageU8, Views]] = [
        (bar_teacher(sha256="b" * 64).teacher(), images, "center"),
        (bars.teacher(), images, "ten-crop"),
        (replace(bars.teacher(), labels=tuple("abcdefg")), images, "center"),
        (bars.teacher(), changed, "center"),
    ]
    for number, (teacher, pictures, views) in enumerate(others, start=2):
        distillation_targets(teacher, pictures, views, tmp_path)
        assert len({path.parent for path in files(tmp_path)}) == number


def _flip_a_bit(path: Path, _: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)


def _cut(path: Path, _: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def _empty(path: Path, _: Path) -> None:
    path.write_bytes(b"")


def _text(path: Path, _: Path) -> None:
    path.write_text("these are no answers, but text\n")


def _other(path: Path, other: Path) -> None:
    path.write_bytes(other.read_bytes())


@pytest.mark.parametrize("damage", [_flip_a_bit, _cut, _empty, _text, _other])
def test_damaged_and_foreign_files_are_noticed_and_made_again(
    bar_teacher: Make, images: ImageU8, tmp_path: Path, damage: Callable[[Path, Path], None]
) -> None:
    bars = bar_teacher()
    expected = distillation_targets(bars.teacher(), images, "center", tmp_path).logits
    path, other, _ = files(tmp_path)
    damage(path, other)
    before, notices = bars.crops_seen, []
    assert np.array_equal(
        distillation_targets(bars.teacher(), images, "center", tmp_path, notify=notices.append).logits, expected
    )
    assert bars.crops_seen == before + 20  # the images of the damaged file
    assert len(notices) == 1
    assert str(path) in notices[0]
    distillation_targets(bars.teacher(), images, "center", tmp_path, notify=notices.append)
    assert len(notices) == 1


def test_an_interrupted_run_continues(bar_teacher: Make, images: ImageU8, tmp_path: Path) -> None:
    bars = bar_teacher()

    def interrupt(done: int, total: int | None) -> None:
        assert total == len(images)
        if done >= 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        distillation_targets(bars.teacher(), images, "center", tmp_path, interrupt)
    assert len(files(tmp_path)) == 1
    assert not [path for path in tmp_path.rglob("*") if path.name.startswith(".")]
    before = bars.crops_seen
    progress: list[tuple[int, int | None]] = []
    distillation_targets(bars.teacher(), images, "center", tmp_path, lambda *counts: progress.append(counts))
    assert bars.crops_seen - before == len(images) - 20
    assert progress[-1] == (len(images), len(images))
    assert [done for done, _ in progress] == sorted(done for done, _ in progress)


def test_members_of_an_ensemble_are_cached_each_by_itself(bar_teacher: Make, images: ImageU8, tmp_path: Path) -> None:
    first, second = bar_teacher(), bar_teacher(sha256="b" * 64)
    alone = distillation_targets(first.teacher(), images, "center", tmp_path)
    both = distillation_targets(ensemble([first.teacher(), second.teacher()]), images, "center", tmp_path)
    assert first.crops_seen == second.crops_seen == len(images)
    np.testing.assert_allclose(both.logits, mean_of_probabilities([alone.logits, alone.logits]), atol=1e-6)


def test_the_target_is_the_mean_over_the_views(images: ImageU8, tmp_path: Path) -> None:
    def predict(crops: ImageU8) -> TeacherOutputs:
        left = crops[:, :, : crops.shape[2] // 2].mean(axis=(1, 2, 3))
        angle = np.where(left > 25, 0.0, np.pi / 2)
        return TeacherOutputs(
            np.stack([left, -left], axis=1).astype(np.float32), np.stack([np.cos(angle), np.sin(angle)], axis=1)
        )

    images = images[:4].copy()
    images[:, :, :24] = 40
    images[:, :, 24:] = 10
    targets = distillation_targets(
        Teacher("classifier", "x", ("a", "b"), "c" * 64, predict), images, "center-flip", tmp_path
    )
    np.testing.assert_allclose(targets.logits, [[25, -25]] * 4)
    np.testing.assert_allclose(targets.embeddings, [[0.5**0.5, 0.5**0.5]] * 4, atol=1e-3)


def test_outputs_with_nan_are_refused(images: ImageU8, tmp_path: Path) -> None:
    teacher = Teacher(
        "classifier", "x", ("a",), "c" * 64, lambda crops: TeacherOutputs(np.full((len(crops), 1), np.nan))
    )
    with pytest.raises(InputError, match="outputs of teacher 'x' contain NaN or infinity"):
        distillation_targets(teacher, images, "center", tmp_path)
    assert files(tmp_path) == []


@pytest.mark.parametrize("views", get_args(Views))
@pytest.mark.parametrize("share", [44 / 48, 1.0])
def test_views_have_the_size_the_teacher_sees(images: ImageU8, views: Views, share: float) -> None:
    side = 44 if views in ("ten-crop", "all-crops") else round(48 * share)
    crops = cut_views(images[:3], views, (share, share))
    assert crops.shape == (3, view_count(views, (48, 48)), side, side, 1)
    if views == "center-flip":
        assert np.array_equal(crops[:, 1], crops[:, 0, :, ::-1])


def test_agreement_is_the_share_of_equal_first_classes() -> None:
    assert agreement(np.eye(4, dtype=np.float32), np.eye(4, dtype=np.float32)[[0, 1, 3, 2]]) == 0.5
