"""Settings files of `edgekit run`: reading, overriding, printing, and what is refused."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import pytest


@pytest.fixture
def settings(edgekit, tmp_path: Path):
    """Return a function that writes a settings file and returns the effective settings with it and with arguments."""

    def effective(text: str, *arguments: object) -> dict:
        path = tmp_path / "edgekit.toml"
        path.write_text(text)
        code, out, err = edgekit("run", "--config", path, "--print-config", *arguments)
        assert (code, err) == (0, "")
        return tomllib.loads(out)

    return effective


def test_settings_come_from_the_file_and_flags_override_them(settings):
    text = 'source = "demo"\nmin-face = 64\nthreads = 2\nsmooth = 1\n'
    text += 'mqtt = "mqtt://broker"\nmqtt-discovery = false\nevent-label = ["sad", "happy"]\n'
    document = settings(text, "--threads", 3, "--jsonl", "-", "--mqtt-discovery")
    assert (document["source"], document["min-face"], document["threads"]) == ("demo", 64, 3)
    assert (document["jsonl"], document["mqtt-discovery"], document["smooth"]) == ("-", True, 1)
    assert document["event-label"] == ["sad", "happy"]
    assert document["model"] == "default"
    assert settings(text, "--event-label", "calm")["event-label"] == ["calm"]


def test_an_option_that_may_go_without_a_value_is_true_or_false_or_its_value(settings):
    document = settings("camera = true\nweb = true\n")
    assert (document["camera"], document["web"]) == ("auto", "127.0.0.1:8080")
    assert settings('camera = "2"\n')["camera"] == "2"
    assert "camera" not in settings('source = "demo"\ncamera = false\n')


def test_a_source_on_the_command_line_sets_aside_the_camera_of_the_file_and_its_options(settings):
    text = 'camera = "usb"\nrotate = 90\ncontrol = ["format=MJPG"]\n'
    assert settings(text)["rotate"] == 90
    document = settings(text, "--source", "demo")
    assert (document["source"], document["rotate"]) == ("demo", 0)
    assert not {"camera", "control"} & set(document)
    assert settings('source = "demo"\nrealtime = true\n', "--camera")["realtime"] is False


def test_what_is_printed_can_be_read_and_prints_the_same(edgekit, tmp_path):
    path = tmp_path / "edgekit.toml"
    odd = 'a "quoted" \\ näme\t.jsonl'
    arguments = ("--source", "x.mp4", "--jsonl", odd, "--save", "o.mp4", "--web", "--event-label", "sad")
    arguments += ("--rotate-files", "1h")
    _, first, _ = edgekit("run", *arguments, "--print-config")
    path.write_text(first)
    _, second, _ = edgekit("run", "--config", path, "--print-config")
    assert second == first
    assert tomllib.loads(first)["jsonl"] == odd
    _, document, _ = edgekit("run", *arguments, "--print-config", "--json")
    assert json.loads(document)["jsonl"] == odd
    assert json.loads(document)["csv"] is None


@pytest.mark.parametrize(
    "text",
    [
        "max_frames = 3\n",
        "[mqtt]\nurl = 'x'\n",
        "threads = 'two'\n",
        "threads = 0\n",
        "event-label = 'sad'\n",
        "jsonl = '~/r.jsonl'\n",
        "rotate-files = '10 potatoes'\n",
        "threads 2\n",
    ],
)
def test_a_wrong_file_is_one_line_that_names_the_file(edgekit, tmp_path, text):
    path = tmp_path / "edgekit.toml"
    path.write_text(text)
    code, out, err = edgekit("run", "--config", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert str(path) in err


@pytest.mark.parametrize(
    ("key", "replacement"),
    [("detect-every", "every-frame"), ("every-face", "no-largest"), ("camera-format", "control")],
)
def test_an_option_of_an_earlier_version_is_answered_with_its_replacement(edgekit, tmp_path, key, replacement):
    path = tmp_path / "edgekit.toml"
    path.write_text(f'{key} = "x"\n')
    for words in (("--config", path), ("--source", "demo", f"--{key}", "x"), ("--source", "demo", f"--{key}=x")):
        code, _, err = edgekit("run", *words)
        assert code == 2
        assert f"--{replacement}" in err


def test_a_misspelled_key_is_answered_with_the_nearest(edgekit, tmp_path):
    path = tmp_path / "edgekit.toml"
    path.write_text("maxframes = 3\n")
    assert "max-frames" in edgekit("run", "--config", path)[2]


@pytest.mark.parametrize(
    ("text", "cure"),
    [
        ("source = door.mp4\n", "text needs quotes"),
        ("rotate-files = 10MB\n", "text needs quotes"),
        ("event-label = 'sad'\n", '["sad"]'),
        ("loop = true\n", "--print-config"),  # no key is similar
    ],
)
def test_a_wrong_file_is_answered_with_the_cure(edgekit, tmp_path, text, cure):
    path = tmp_path / "edgekit.toml"
    path.write_text(text)
    code, _, err = edgekit("run", "--config", path)
    assert code == 2
    assert cure in err


def test_settings_run(edgekit, tiny_model, tmp_path):
    path = tmp_path / "edgekit.toml"
    path.write_text(f'model = "{tiny_model}"\nsource = "demo"\ndetector = "none"\nmax-frames = 3\n')
    for arguments, frames in (((), 3), (("--max-frames", 2), 2)):
        code, document, _ = edgekit("run", "--config", path, "--json", *arguments)
        assert (code, json.loads(document)["frames"]) == (0, frames)


def test_a_file_of_an_editor_of_windows_is_read(settings):
    assert settings('\ufeffsource = "demo"\r\nmax-frames = 5\r\n')["max-frames"] == 5
