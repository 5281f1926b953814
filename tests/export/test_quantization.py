"""Quantised files: small, close to float32, reproducible, and refused if the accuracy drops."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.device.engines.classifier import Classifier, portrait_crops
from edgekit.errors import GateError, InputError, StorageError
from edgekit.export.quantization import Calibration, calibration_crops, quantize_file, quantize_static, to_float16
from edgekit.export.run import quantize
from edgekit.export.targets import QuantizedTypes, chosen_passes
from edgekit.export.to_onnx import contract_of, to_onnx
from edgekit.model_store import resolve_model
from edgekit.models.checkpoint import load_checkpoint
from edgekit.models.data import EXPRESSIONS, DataSet, ImageSet
from edgekit.models.model_loading import build_net, contract_for
from edgekit.models.nets.registry import create_model
from edgekit.preprocess import ImageU8


@pytest.fixture(scope="module")
def default() -> onnx.ModelProto:
    checkpoint = load_checkpoint(resolve_model("fer2013", (".safetensors",)))
    return to_onnx(build_net(checkpoint), checkpoint.contract, chosen_passes("x86", quantized=True))


@pytest.fixture(scope="module")
def crops(default: onnx.ModelProto) -> ImageU8:
    return portrait_crops(contract_of(default))


def opened(model: onnx.ModelProto, folder: Path) -> Classifier:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString(deterministic=True))
    return Classifier(path, 1)


@pytest.mark.slow
@pytest.mark.parametrize("types", ["u8s8", "s8s8"])
def test_static_files_are_small_and_close(
    default: onnx.ModelProto, crops: ImageU8, tmp_path: Path, types: QuantizedTypes
) -> None:
    model, error = quantize_static(default, types, Calibration(crops[:20], "portrait"))
    assert model.ByteSize() < 0.3 * default.ByteSize()
    assert 0 < error < 0.15
    contract = contract_of(model)
    assert contract.precision == "int8"
    assert contract.calibration == f"portrait, minmax, qdq {types} per channel"
    assert contract.provenance.accuracy == ()
    classifier = opened(model, tmp_path)
    assert (classifier.logits(crops).argmax(1) == opened(default, tmp_path).logits(crops).argmax(1)).mean() > 0.9


def test_the_same_crops_give_the_same_bytes(default: onnx.ModelProto, crops: ImageU8) -> None:
    one, two = (quantize_static(default, "u8s8", Calibration(crops[:4], "x"))[0] for _ in range(2))
    assert one.SerializeToString(deterministic=True) == two.SerializeToString(deterministic=True)


@pytest.fixture(scope="module")
def small() -> onnx.ModelProto:
    return to_onnx(create_model("mini-xception", 7), contract_for("mini-xception", EXPRESSIONS, "faces", gray=True))


def test_each_crop_calibrates_once_and_counts_in_the_error(
    small: onnx.ModelProto, crops: ImageU8, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[int, int | None]] = []
    some = crops[:40]
    model, error = quantize_static(small, "u8s8", Calibration(some, "x"), lambda *counts: seen.append(counts))
    assert seen == [(number, 40) for number in range(1, 41)]
    assert capfd.readouterr() == ("", ""), "stdout is left to results"
    before, after = (opened(each, tmp_path).logits(some).astype(np.float64) for each in (small, model))
    assert error == pytest.approx(np.sqrt(np.mean((after - before) ** 2) / np.mean(before**2)), rel=1e-4)


def test_a_file_in_half_floats_is_small_and_close(default: onnx.ModelProto, crops: ImageU8, tmp_path: Path) -> None:
    model, expected = to_float16(default), opened(default, tmp_path).logits(crops)
    assert contract_of(model).precision == "float16"
    assert model.ByteSize() < 0.55 * default.ByteSize()
    found = opened(model, tmp_path).logits(crops)
    assert (found.argmax(1) == expected.argmax(1)).mean() > 0.9
    assert not np.array_equal(found, expected)


def test_too_little_space_for_the_quantisers_files_is_a_fault_of_the_disk(
    small: onnx.ModelProto, crops: ImageU8, small_disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    # The quantiser first writes a second file of the same size, of which only half fits.
    (small_disk / "other").write_bytes(bytes((1 << 20) - int(1.5 * small.ByteSize())))
    with pytest.raises(StorageError):
        quantize_static(small, "u8s8", Calibration(crops[:1], "x"))


@pytest.mark.parametrize("is_link", [False, True])
def test_the_float32_file_is_not_replaced(default: onnx.ModelProto, tmp_path: Path, is_link: bool) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / ("link.onnx" if is_link else "float.onnx")
    onnx.save(default, source)
    if is_link:
        target.symlink_to(source)
    before = source.read_bytes()
    with pytest.raises(InputError, match=f"output '{target}' is an input of this command"):
        quantize(source, target, method="fp16")
    assert source.read_bytes() == before


def faces(default: onnx.ModelProto, crops: ImageU8) -> DataSet:
    """Return the portrait's crops as a data set with the predictions of the float32 net as labels."""
    contract = contract_of(default)
    with tempfile.TemporaryDirectory() as folder:
        predictions = opened(default, Path(folder)).logits(crops).argmax(1)
    pictures = np.zeros((len(crops), *contract.crop.resize_hw, 1), np.uint8)
    pictures[:, 2:-2, 2:-2] = crops
    return DataSet("portrait", contract.labels, {"test": ImageSet(pictures, predictions.astype(np.int64))})


def test_the_same_images_are_drawn_for_calibration(default: onnx.ModelProto, crops: ImageU8) -> None:
    dataset, contract = faces(default, crops), contract_of(default)
    one = calibration_crops(dataset, "test", contract, 5)
    assert one.text == "portrait test, 5 images, seed 0"
    assert one.crops.shape == (5, 44, 44, 1)
    np.testing.assert_array_equal(one.crops, calibration_crops(dataset, "test", contract, 5).crops)
    assert len(calibration_crops(dataset, "test", contract, 500).crops) == len(crops)
    # The text contains the name that the split has in the data.
    assert calibration_crops(dataset, "PrivateTest", contract, 5).text == one.text


def test_the_gate_accepts_an_equally_accurate_file_and_returns_its_measurements(
    default: onnx.ModelProto, crops: ImageU8, tmp_path: Path
) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(default, source)
    data = (faces(default, crops), "PrivateTest")  # stands for "test", the split's name in the data
    calibration = Calibration(crops[:20], "portrait")
    quantized = quantize_file(source, target, "int8", "u8s8", calibration, data, 10)
    assert quantized.reference is not None
    assert quantized.own is not None
    assert quantized.reference.accuracy == 1
    assert quantized.drop_points == 100 * (1 - quantized.own.accuracy)
    (accuracy,) = Classifier(target).contract.provenance.accuracy
    assert (accuracy.split, accuracy.correct) == ("test", quantized.own.correct)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["float.onnx", "int8.onnx"]


def test_merged_labels_are_measured_on_data_without_one_of_the_old_ones(
    draw_faces: Callable[[Path, dict[str, int]], Path], tmp_path: Path
) -> None:
    data = draw_faces(tmp_path / "data", {"PrivateTest": 14})
    shutil.rmtree(data / "PrivateTest/disgust")
    merges = ("good=happy,surprise", "bad=sad,angry", "ugh=disgust")
    target = tmp_path / "half.onnx"
    quantized = quantize("fer2013", target, method="fp16", merges=merges, evaluate_on=data, max_drop_points=100)
    assert quantized.own is not None
    counts = dict(zip(quantized.own.labels, quantized.own.confusion.sum(axis=1).tolist(), strict=True))
    assert counts == {"good": 4, "bad": 4, "ugh": 0}


def test_the_gate_refuses_what_answers_worse_and_keeps_it_under_another_name(
    default: onnx.ModelProto, crops: ImageU8, tmp_path: Path
) -> None:
    source, target = tmp_path / "float.onnx", tmp_path / "int8.onnx"
    onnx.save(default, source)
    target.write_text("old")
    # Calibration ranges of black pictures do not fit faces.
    calibration = Calibration(np.zeros_like(crops[:2]), "black")
    data = (faces(default, crops), "test")
    with pytest.raises(GateError, match=r"accuracy of int8 drops by .* points.*int8.refused.onnx"):
        quantize_file(source, target, "int8", "u8s8", calibration, data, 0.5)
    assert target.read_text() == "old"
    assert Classifier(tmp_path / "int8.refused.onnx").contract.precision == "int8"
