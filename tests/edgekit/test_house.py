"""Project rules that no other test checks: imports, packages, help texts, the generated page of commands, links."""

from __future__ import annotations

import configparser
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("edgekit", "models", "export", "device")

# Packages that each folder may import, besides the standard library and edgekit itself; see ARCHITECTURE.md.
CORE = {"click", "msgspec", "numpy", "rich"}
DEVICE = CORE | {"cv2", "onnxruntime", "platformdirs"}
EXPORT = DEVICE | {"google", "matplotlib", "onnx", "onnx_ir", "onnxscript", "safetensors", "torch"}
MODELS = DEVICE | {"PIL", "h5py", "lightning_fabric", "matplotlib", "open_clip", "safetensors", "torch"}
ONE_MODULE_ONLY = {
    "edgekit.report.page": {"jinja2", "markupsafe"},
    "edgekit.device.sources.picamera": {"picamera2", "libcamera"},
    "edgekit.device.sinks.mp4": {"av"},
    "edgekit.device.sources.files": {"av"},
    "edgekit.device.engines.ncnn_engine": {"ncnn"},
    "edgekit.device.teach.write": {"onnx"},
    "edgekit.device.sinks.mqtt.session": {"paho"},
    "edgekit.device.label": {"starlette"},
    "edgekit.device.sinks.web.app": {"starlette"},
    "edgekit.device.sinks.gpio": {"gpiozero"},
    "edgekit.device.sinks.web.access": {"starlette"},
    "edgekit.device.sinks.web.clips": {"starlette"},
    "edgekit.device.sinks.web.teach": {"starlette"},
    "edgekit.device.sinks.web.server": {"uvicorn"},
    "edgekit.models.nets.external_nets": {"timm", "torchvision"},
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source tree, which tests damage temporarily and from which they build packages."""
    target = tmp_path_factory.mktemp("tree") / "tree"
    target.mkdir()
    for name in (*FOLDERS, "tools", "docs"):
        shutil.copytree(ROOT / name, target / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("setup.cfg", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, target / name)
    return target


def lint_imports(tree: Path) -> subprocess.CompletedProcess[str]:
    # A separate process with the copy first on the path, so that the tool reads the copy, not the installed tree.
    tool = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    return subprocess.run([sys.executable, "-c", tool], cwd=tree, env=environment, capture_output=True, text=True)


def test_the_import_rules_hold(tree: Path) -> None:
    done = lint_imports(tree)
    assert done.returncode == 0, done.stdout


LAYERS = "every module belongs to a layer"
DEVICE_IMPORTS = "not even indirectly"
CORE_ONLY = "nor an engine nor OpenCV"
CAMERA = "Only one module imports picamera2"
VIDEO = "Only two modules import PyAV"
NCNN = "and none imports pnnx"
DEVICE_LAYERS = "of device/ import only those below them"
MODELS_LAYERS = "of models/ import only those below them"
EXPORT_LAYERS = "of export/ import only those below them"
CLI_LAYERS = "of the command line import only those below them"
COMMANDS = "No command imports another"
CIRCLES = "No modules import each other in a circle"


@pytest.mark.parametrize(
    ("module", "statement", "contract"),
    [
        ("device/pipeline/summary.py", "import torch", DEVICE_IMPORTS),
        ("device/pipeline/summary.py", "def f() -> None:\n    import edgekit.export", DEVICE_IMPORTS),
        ("edgekit/preprocess.py", "import cv2", CORE_ONLY),
        ("edgekit/contract.py", "import edgekit.device.pipeline.summary", LAYERS),
        ("device/pipeline/summary.py", "import picamera2", CAMERA),
        ("device/sinks/record.py", "def f() -> None:\n    import av", VIDEO),
        ("device/engines/classifier.py", "import ncnn", NCNN),
        ("device/sources/files.py", "import edgekit.device.sinks.records", DEVICE_LAYERS),
        ("device/unplaced.py", "import json", DEVICE_LAYERS),
        ("models/nets/edgecnn.py", "import edgekit.models.checkpoint", MODELS_LAYERS),
        ("export/profiling/cost.py", "import edgekit.export.targets", EXPORT_LAYERS),
        ("edgekit/cli/boards.py", "import edgekit.cli.commands.bench", CLI_LAYERS),
        ("edgekit/cli/commands/eval.py", "import edgekit.cli.commands.train", COMMANDS),
        ("device/engines/session.py", "def f() -> None:\n    import edgekit.device.engines.engine", CIRCLES),
        ("edgekit/unplaced.py", "import json", LAYERS),
    ],
)
def test_a_forbidden_import_or_an_unplaced_module_breaks_the_rules(
    tree: Path, module: str, statement: str, contract: str
) -> None:
    path = tree / module
    before = path.read_text() if path.exists() else None
    path.write_text(f"{before or ''}\n\n{statement}\n")
    try:
        done = lint_imports(tree)
    finally:
        path.unlink() if before is None else path.write_text(before)
    assert done.returncode == 1, done.stdout
    # "Name BROKEN" or, with exemptions, "Name BROKEN (n ignored imports)"; long names are wrapped.
    assert f"{contract} BROKEN" in " ".join(done.stdout.split())


def test_folders_import_only_what_is_listed() -> None:
    graph = grimp.build_graph("edgekit", include_external_packages=True, cache_dir=None)
    unlisted = {}
    for module in graph.modules:
        if not module.startswith("edgekit"):
            continue
        top_folder = module.split(".")[1] if "." in module else ""
        allowed = {"device": DEVICE, "export": EXPORT, "models": MODELS}.get(top_folder, CORE)
        allowed = allowed | ONE_MODULE_ONLY.get(module, set()) | sys.stdlib_module_names | {"edgekit", "_typeshed"}
        imported = {name.partition(".")[0] for name in graph.find_modules_directly_imported_by(module)}
        if imported - allowed:
            unlisted[module] = sorted(imported - allowed)
    assert unlisted == {}


@pytest.mark.parametrize("top_folder", ["device", "models", "export"])
def test_opencv_has_its_limit_before_any_module_of_a_folder_imports_it(top_folder: str) -> None:
    """OpenCV reads its limit of pixels at import, so each folder sets the limit and does not import OpenCV itself."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("OPENCV_")}
    limit = "os.environ.get('OPENCV_IO_MAX_IMAGE_PIXELS')"
    code = f"import os, sys, edgekit.{top_folder}; print('cv2' in sys.modules, {limit})"
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    assert done.stdout.split() == ["False", str(1 << 27)]


def test_setup_cfg_names_every_package() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    named = set(settings["options"]["packages"].split())
    found = set()
    for top_folder in FOLDERS:
        for path in (ROOT / top_folder).rglob("*.py"):
            folder = path.parent.relative_to(ROOT)
            if top_folder == "edgekit" and folder.parts[1:2] and folder.parts[1] in FOLDERS:
                continue
            found.add(".".join(folder.parts if top_folder == "edgekit" else ("edgekit", *folder.parts)))
    assert named == found


@pytest.mark.slow
def test_wheel_and_source_archive_hold_the_whole_package(tree: Path, tmp_path: Path) -> None:
    tool = tree / "tools/check_packages.py"
    done = subprocess.run([sys.executable, tool, tmp_path / "dist"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_device_extra_names_neither_torch_nor_onnx() -> None:
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    wanted = settings["options"]["install_requires"].split("\n") + settings["options.extras_require"]["device"].split(
        "\n"
    )
    names = {re.split(r"[<>=!\[ ]", line)[0] for line in wanted if line}
    assert names == {*CORE, "av", "jinja2", "onnxruntime", "opencv-python-headless", "platformdirs"}


def test_help_loads_nothing_heavy() -> None:
    heavy = {
        "cv2",
        "h5py",
        "lightning_fabric",
        "jinja2",
        "matplotlib",
        "msgspec",
        "numpy",
        "onnx",
        "onnxruntime",
        "rich",
        "torch",
    }
    code = (
        "import sys; from edgekit.cli import cli, run\n"
        "for command in ('', *cli.list_commands(None)):\n"
        "    assert run([command, '--help'] if command else ['--help']) == 0\n"
        f"    assert not (loaded := {heavy!r} & set(sys.modules)), (command, loaded)"
    )
    fresh_python(code)


def test_the_architecture_names_files_that_exist() -> None:
    named = re.findall(r"`(\w+/[\w./-]+\.\w+)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert len(named) > 50


def fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
