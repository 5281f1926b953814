"""Settings files of `edgekit run`: reading, overriding, printing, and error messages with a hint."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from edgekit.cli import cli
from edgekit.cli.config import config_options, setting_options


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
    text = 'source = "demo"\ndetector-size = 640\nthreads = 2\nmqtt-discovery = false\nevent-label = ["sad", "happy"]\n'
    document = settings(text, "--threads", 3, "--jsonl", "-", "--mqtt-discovery")
    assert (document["source"], document["detector-size"], document["threads"]) == ("demo", 640, 3)
    assert (document["jsonl"], document["mqtt-discovery"]) == ("-", True)
    assert document["event-label"] == ["sad", "happy"]
    assert document["model"] == "default"
    assert settings(text, "--event-label", "calm")["event-label"] == ["calm"]


def test_quantities_are_written_as_people_do(settings):
    document = settings(
        'rotate-size = "10MB"\nrotate-age = "7d"\nevent-hold = 2\nevent-cooldown = "1.5s"\nweb-fps = 5\n'
    )
    assert document["rotate-size"] == 10_000_000
    assert (document["rotate-age"], document["event-hold"], document["event-cooldown"]) == (604_800, 2, 1.5)
    assert document["web-fps"] == 5


def test_an_option_that_may_go_without_a_value_is_true_or_false_or_its_value(settings):
    document = settings("camera = true\nweb = true\n")
    assert (document["camera"], document["web"]) == ("auto", "127.0.0.1:8080")
    assert settings("camera = 2\n")["camera"] == "2"
    assert "camera" not in settings('source = "demo"\ncamera = false\n')


def test_a_source_on_the_command_line_replaces_the_files_camera(settings):
    document = settings('camera = "usb"\n', "--source", "demo")
    assert document["source"] == "demo"
    assert "camera" not in document
    assert settings('source = "demo"\n', "--camera")["camera"] == "auto"


def test_what_is_printed_can_be_read_and_prints_the_same(edgekit, tmp_path):
    path = tmp_path / "edgekit.toml"
    odd = 'a "quoted" \\ näme\t.jsonl'
    arguments = ("--source", "x.mp4", "--jsonl", odd, "--save", "o.mp4", "--event-label", "sad", "--rotate-age", "1h")
    _, first, _ = edgekit("run", *arguments, "--print-config")
    path.write_text(first)
    _, second, _ = edgekit("run", "--config", path, "--print-config")
    assert second == first
    assert tomllib.loads(first)["jsonl"] == odd
    _, document, _ = edgekit("run", *arguments, "--print-config", "--json")
    assert json.loads(document)["jsonl"] == odd
    assert json.loads(document)["csv"] is None


def test_every_option_is_a_key_and_is_printed(edgekit):
    command = cli.get_command(None, "run")
    _, printed, _ = edgekit("run", "--print-config")
    for key, option in setting_options(command).items():
        assert f"--{key}" in option.opts
        assert f"\n{key} =" in printed or f"\n#{key} =" in printed


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("detectorsize = 3\n", "unknown key 'detectorsize': did you mean 'detector-size'?"),
        ("max_frames = 3\n", "unknown key 'max_frames': did you mean 'max-frames'?"),
        ("qqqqqq = 3\n", "unknown key 'qqqqqq': `edgekit run --print-config` lists all keys"),
        ("debug = true\n", "unknown key 'debug'"),
        ("config = 'x'\n", "unknown key 'config'"),
        ("colour = 1\nsauce = 'demo'\n", "'sauce': did you mean 'source'?"),
        ("[mqtt]\nurl = 'x'\n", "'mqtt' is a table"),
        ("threads = 'two'\n", "threads = 'two': write a number without quotes"),
        ("threads = 2.5\n", "threads = 2.5: write a whole number"),
        ("threads = " + "9" * 5000, "are not valid TOML"),
        ("smooth = " + "9" * 400, "the number is too large"),
        ("threads = inf\n", "threads = inf: write a finite number"),
        ("event-probability = nan\n", "event-probability = nan: write a finite number"),
        ("event-label = [true]\n", "write text or a number"),
        ("threads = 0\n", "threads = 0: 0 is not in the range"),
        ("threads = true\n", "threads = True: write a value instead"),
        ("show = 1\n", "show = 1: write true or false"),
        ("detector = 'dlib'\n", "detector = 'dlib': 'dlib' is not one of"),
        ("event-label = 'sad'\n", "event-label = 'sad': write a list"),
        ('save = "a\\u0000.mp4"\n', "leave out the character NUL"),
        ("jsonl = '~/r.jsonl'\n", "jsonl = '~/r.jsonl': write the path without '~'"),
        ("source = ['a']\n", "source = ['a']: write one value instead of a list"),
        ("source = 1979-05-27\n", "write text or a number"),
        ("rotate-size = '10 potatoes'\n", "'10 potatoes' is not a size: write"),
        ("rotate-size = 5\n", "'5' is too small"),
        ("event-hold = '1 year'\n", "'1 year' is not a time: write"),
        ("threads 2\n", "are not valid TOML"),
        ("a = 1\na = 2\n", "are not valid TOML"),
        ("a = " + "[" * 20_000, "nested too deeply"),
        ("[run]\nsource = 'demo'\n", "'run' is a table"),
    ],
)
def test_a_wrong_file_is_one_line_and_names_the_cure(edgekit, tmp_path, text, message):
    path = tmp_path / "edgekit.toml"
    path.write_text(text)
    code, out, err = edgekit("run", "--config", path)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert message in err
    assert str(path) in err


def test_a_file_that_is_not_there_or_no_text_is_refused(edgekit, tmp_path):
    path = tmp_path / "edgekit.toml"
    code, _, err = edgekit("run", "--config", path)
    assert code == 2
    assert f"settings '{path}' does not exist" in err
    path.write_bytes(b"\xff\xff")
    assert "are not valid TOML" in edgekit("run", "--config", path)[2]
    assert "is a folder, not a file" in edgekit("run", "--config", tmp_path)[2]
    assert "'/dev/zero' is a pipe or a device" in edgekit("run", "--config", "/dev/zero")[2]


def test_settings_run(edgekit, tiny_model, tmp_path):
    path = tmp_path / "edgekit.toml"
    path.write_text(
        f'model = "{tiny_model}"\nsource = "demo"\ndetector = "none"\nmax-frames = 3\njsonl = "{tmp_path}/r.jsonl"\n'
    )
    assert edgekit("run", "--config", path, "-q")[0] == 0
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 3
    assert edgekit("run", "--config", path, "-q", "--max-frames", 2)[0] == 0
    assert len((tmp_path / "r.jsonl").read_text().splitlines()) == 5  # the file is continued


@pytest.mark.parametrize(("given", "size_px"), [((), 128), (("--detector-size", "320"), 320)])
def test_a_printed_file_has_the_detector_size_of_its_command_line(edgekit, tiny_model, tmp_path, given, size_px):
    path = tmp_path / "edgekit.toml"
    run = ("run", "--source", "demo", "--model", tiny_model, "--detector", "haar", "--min-face", "120", *given)
    path.write_text(edgekit(*run, "--print-config")[1])
    for arguments in (run, ("run", "--config", path)):
        code, document, _ = edgekit(*arguments, "--max-frames", 2, "--json")
        assert (code, json.loads(document)["settings"]["detector_size_px"]) == (0, size_px)


def test_a_file_of_an_editor_of_windows_is_read(settings):
    assert settings('\ufeffsource = "demo"\r\nmax-frames = 5\r\n')["max-frames"] == 5


def test_a_number_that_may_be_a_word_is_either(settings):
    assert settings('source = "demo"\ndetect-every = "auto"\n')["detect-every"] == "auto"
    assert settings('source = "demo"\ndetect-every = 5\n')["detect-every"] == 5


def test_what_belongs_to_a_source_is_put_aside_with_it(tmp_path):
    @click.command()
    @click.option("--camera")
    @click.option("--file")
    @click.option("--camera-rate", type=int, default=30)
    @click.option("--control", multiple=True)
    @config_options({"camera": ("camera_rate", "control"), "file": ()})
    def command(**values: object) -> None:
        click.echo(json.dumps(values))

    path = tmp_path / "settings.toml"
    path.write_text('camera = "usb"\ncamera-rate = 5\ncontrol = ["a=1"]\n')

    def values(*arguments: str) -> dict:
        return json.loads(
            CliRunner().invoke(command, ["--config", str(path), *arguments], catch_exceptions=False).output
        )

    assert values() == {"camera": "usb", "file": None, "camera_rate": 5, "control": ["a=1"]}
    assert values("--file", "x") == {"camera": None, "file": "x", "camera_rate": 30, "control": []}
    assert values("--file", "x", "--camera-rate", "9")["camera_rate"] == 9
    assert values("--camera", "picamera2")["camera_rate"] == 5
