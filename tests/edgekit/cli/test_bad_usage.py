"""Bad input of each command: one line with the cure, exit code 2, and no file is written or changed."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., tuple[int, str, str]]

TRAIN = "train --data faces -o out -q"
DISTILL = "distill --data faces -o out --epochs 1"
EXPORT = "export default -o out/model.onnx"
RUN = "run --model tiny.onnx --detector none"
DEMO = f"{RUN} --source demo"
WHOLE_IMAGES = "run --model tiny-image.onnx --source demo"


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


@pytest.mark.parametrize(
    "words",
    [
        "train --data absent -o out",
        f"{TRAIN} --model resnet",
        f"{TRAIN} --recipe best",
        f"{TRAIN} --train-split x",
        "train --data faces -o faces/val/happy/3.png",
        f"{TRAIN} --max-lr nan",
        f"{TRAIN} --ferplus-labels majority",
        f"{TRAIN} --merge a=happy",
        DISTILL,
        f"{DISTILL} --teacher absent",
        f"{DISTILL} --teacher tiny.onnx",
        f"{DISTILL} --teacher default --student resnet",
        f"{DISTILL} --teacher default --temperature 0",
        f"{DISTILL} --teacher default --views center",
        f"{DISTILL} --teacher default --clip text.safetensors",
        "distill --data faces --teacher default -o tiny.onnx",
        "eval default",
        "eval absent.onnx --data faces",
        "eval text.safetensors --data faces",
        "eval default --data faces --split x",
        "eval default --data faces --plot a.txt",
        "eval default --data faces --min-face 40",
        "eval default --data faces --photos faces",
        "eval default --photos absent",
        "eval default --photos faces --recall-of joy",
        "import text.t7 -o a.safetensors",
        "import text.onnx -o a.onnx",
        "data check absent",
        "data check faces/train/angry",
        f"{EXPORT} --quantize int8",
        f"{EXPORT} --calibrate faces",
        f"{EXPORT} --calibrate-split train",
        f"{EXPORT} --eval faces --max-drop 1",
        f"{EXPORT} --target nonesuch",
        f"{EXPORT} --class a --class b --class a",
        f"{EXPORT} --engine ncnn",
        f"{EXPORT} --precision fp16",
        "export default -o model.bin",
        "inspect text.onnx",
        "inspect text.safetensors",
        "verify tiny.onnx --against tiny.onnx --data faces --split x",
        "profile default --size 320x240",
        "profile default --board pi2",
        RUN,
        f"{RUN} --source missing.mp4",
        f"{RUN} --source nobody://x",
        f"{RUN} --source a.mp4 --save ./a.mp4",
        f"{RUN} --source a.12.mp4 --save ./a.mp4 --rotate-files 1MB",
        f"{RUN} --camera front",
        f"{RUN} --camera 987 --control Gain",
        f"{DEMO} --camera",
        f"{DEMO} --json --jsonl -",
        f"{DEMO} --save a.mp4 --csv ./a.mp4",
        f"{DEMO} --save out.txt",
        f"{DEMO} --roi 600,0,100,100",
        f"{DEMO} --zone 0,0,1,0,1,1",
        f"{DEMO} --zone a=0,0,1,1",
        f"{DEMO} --zone a=0,0,100,0,100,100",
        f"{DEMO} --zone a=0,0,1,0,0.5,0",
        f"{DEMO} --zone a=0,0,1,0,1,1 --zone a=0,0,0,1,1,1",
        f"{DEMO} --zone a=0,0,1,0,1,1 --detector none",
        f"{DEMO} --record r.mp4",
        f"{DEMO} --web 0.0.0.0:0",
        f"{DEMO} --web 0 --web-token-file missing",
        f"{DEMO} --mqtt http://broker",
        f"{DEMO} --mqtt mqtt://broker --mqtt-discovery-prefix a/#",
        f"{DEMO} --mqtt mqtt://me:secret-word@broker",
        f"{DEMO} --mqtt mqtts://broker --mqtt-cert a.pem",
        f"{DEMO} --webhook ftp://host/",
        f"{DEMO} --webhook http://127.0.0.1:9/ --event-label grumpy",
        f"{DEMO} --csv r.csv --event-hold 2s",
        f"{DEMO} --csv r.csv --rotate-files keep=3",
        f"{DEMO} --collect c --collect-when uncertain:2",
        f"{DEMO} --collect c --save s.mp4 --blur-faces",
        f"{DEMO} --jsonl - --blur-faces",
        "run --model tiny.onnx --source demo --detector dlib",
        "run --model missing.onnx --source demo",
        f"{WHOLE_IMAGES} --detector yunet",
        f"{WHOLE_IMAGES} --min-face 40",
        f"{WHOLE_IMAGES} --zone a=0,0,1,0,1,1 --roi 0,0,0.5,0.5",
        f"{WHOLE_IMAGES} --roi 0,0,700,10",
        f"{WHOLE_IMAGES} --save out.mp4 --blur-faces",
        "bench tiny.onnx --threads 0",
        "bench tiny.onnx --threads 1,1",
        "bench tiny.onnx --seconds 0",
        "bench tiny.onnx --note fan",
        "bench tiny.onnx --no-pipeline --detector haar",
        "bench tiny.onnx --detector nowhere.onnx",
        "bench tiny.onnx --html page.txt",
        "bench default --formats all",
        "bench default --formats int4 --data faces",
        "bench default --data faces",
        "bench default --target a53",
        "bench tiny.onnx --formats all --data faces",
        "report text.json",
        "compare text.json text.json",
    ],
)
def test_bad_input_is_one_line_and_changes_nothing(
    edgekit: Run, place: Path, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    monkeypatch.chdir(place)
    before = content(place)
    code, out, err = edgekit(*shlex.split(words))
    assert (code, out, err.count("\n")) == (2, "", 1), err
    assert "secret-word" not in err
    assert content(place) == before


def content(folder: Path) -> dict[Path, int]:
    """Return the time of the last change of each file and folder."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
