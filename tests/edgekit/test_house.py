"""Project rules that no other test checks: imports, packages, help texts, the generated page of commands, links."""

from __future__ import annotations

import ast
import configparser
import json
import os
import re
import runpy
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import grimp
import pytest

from edgekit.cli import cli
from tools import reference_pages

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
        ("device/pipeline/summary.py", "import onnx", DEVICE_IMPORTS),
        ("device/pipeline/summary.py", "from edgekit.models import registry", DEVICE_IMPORTS),
        ("device/pipeline/summary.py", "def f() -> None:\n    import edgekit.export", DEVICE_IMPORTS),
        ("edgekit/preprocess.py", "import cv2", CORE_ONLY),
        ("edgekit/boards.py", "import onnxruntime", CORE_ONLY),
        ("edgekit/cli/output.py", "def f() -> None:\n    import torch", CORE_ONLY),
        ("edgekit/contract.py", "import edgekit.device.pipeline.summary", LAYERS),
        ("models/nets/registry.py", "import edgekit.export", LAYERS),
        ("device/pipeline/summary.py", "import picamera2", CAMERA),
        ("device/sinks/record.py", "def f() -> None:\n    import av", VIDEO),
        ("device/engines/classifier.py", "import ncnn", NCNN),
        ("export/to_ncnn.py", "def f() -> None:\n    import pnnx", NCNN),
        ("device/sources/files.py", "import edgekit.device.sinks.records", DEVICE_LAYERS),
        ("device/pipeline/summary.py", "import edgekit.device.sinks.records", DEVICE_LAYERS),
        ("device/detection/haar.py", "import edgekit.device.tracking.tracks", DEVICE_LAYERS),
        ("device/unplaced.py", "import json", DEVICE_LAYERS),
        ("models/nets/edgecnn.py", "import edgekit.models.checkpoint", MODELS_LAYERS),
        ("models/evaluation/plots.py", "import edgekit.models.training.recipes", MODELS_LAYERS),
        ("export/profiling/cost.py", "import edgekit.export.targets", EXPORT_LAYERS),
        ("export/targets.py", "import edgekit.export.quantization", EXPORT_LAYERS),
        ("edgekit/cli/boards.py", "import edgekit.cli.commands.bench", CLI_LAYERS),
        ("edgekit/cli/commands/eval.py", "import edgekit.cli.commands.train", COMMANDS),
        ("device/engines/session.py", "def f() -> None:\n    import edgekit.device.engines.engine", CIRCLES),
        ("device/teach/fit.py", "import onnx", DEVICE_IMPORTS),
        ("edgekit/remote/board/loader.py", "import edgekit.remote.board.setup", CIRCLES),
        ("edgekit/unplaced.py", "import torch", CORE_ONLY),
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


def test_what_other_programs_print_is_decoded_whatever_it_is() -> None:
    calls = [
        (f"{path}:{node.lineno}", {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords})
        for top_folder in FOLDERS
        for path in (ROOT / top_folder).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call)
    ]
    of_programs = {place: "errors" in keywords for place, keywords in calls if keywords.get("text") == "True"}
    assert [place for place, is_lenient in of_programs.items() if not is_lenient] == []
    assert len(of_programs) > 5


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


def test_the_links_show_the_folders_inside_the_package() -> None:
    for top_folder in ("models", "export", "device"):
        assert (ROOT / "edgekit" / top_folder).readlink() == Path("..") / top_folder


@pytest.mark.slow
def test_wheel_and_source_archive_hold_the_whole_package(tree: Path, tmp_path: Path) -> None:
    tool = tree / "tools/check_packages.py"
    done = subprocess.run([sys.executable, tool, tmp_path / "dist"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr

    # The check also finds files that are missing in the wheel or in the source archive.
    check = runpy.run_path(str(tool))
    (sdist,), (wheel,) = (tmp_path / "dist").glob("*.tar.gz"), (tmp_path / "dist").glob("*.whl")
    poorer = {path.name: tmp_path / path.name for path in (sdist, wheel)}
    with zipfile.ZipFile(wheel) as full, zipfile.ZipFile(poorer[wheel.name], "w") as archive:
        for name in full.namelist():
            if name not in ("edgekit/py.typed", "edgekit/device/pipeline/summary.py"):
                archive.writestr(name, full.read(name))
    with tarfile.open(sdist) as full, tarfile.open(poorer[sdist.name], "w:gz") as archive:
        for member in full.getmembers():
            if not member.name.endswith("/astronaut.png"):
                archive.addfile(member, full.extractfile(member))
    assert check["missing_files"](*poorer.values()) == [
        "wheel: edgekit/device/pipeline/summary.py",
        "wheel: edgekit/py.typed",
        "source archive: edgekit/assets/astronaut.png",
    ]


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


def test_every_command_has_examples() -> None:
    for name in cli.list_commands(None):  # type: ignore[arg-type]
        command = cli.get_command(None, name)  # type: ignore[arg-type]
        assert command is not None
        assert "Examples:" in (command.help or ""), name


def test_ci_tries_all_examples_of_property_tests() -> None:
    # The variable is read by tests/examples.py.
    assert re.search("^export CI=1$", (ROOT / ".ci/run").read_text(), re.MULTILINE)


def test_links_between_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]:
        for target in re.findall(r"\]\(([^)#:]+)\)", document.read_text()):
            path = (document.parent / target).resolve()
            assert path.exists() or str(path.relative_to(ROOT)) in reference_pages.PAGES, f"{document.name}: {target}"


def test_the_architecture_names_files_that_exist() -> None:
    named = re.findall(r"`(\w+/[\w./-]+\.\w+)`", (ROOT / "ARCHITECTURE.md").read_text())
    assert [name for name in named if not (ROOT / name).is_file()] == []
    assert len(named) > 50


def test_the_demo_check_requires_four_frames_in_five(tmp_path: Path) -> None:
    def verdict(labels: list[str]) -> int:
        path = tmp_path / "results.jsonl"
        path.write_text("".join(json.dumps({"faces": [{"label": label}]}) + "\n" for label in labels))
        return subprocess.run([sys.executable, ROOT / "tools/check_demo.py", path], capture_output=True).returncode

    assert verdict(["happy"] * 8 + ["sad"] * 2) == 0
    assert verdict(["happy"] * 7 + ["sad"] * 3) == 1
    assert verdict([]) == 1


def fresh_python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
