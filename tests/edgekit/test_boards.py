"""Boards replayed from text files; the head of each file in tests/fixtures/boards states its origin."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from edgekit.boards import Board, Conditions, Interpreter, parse_throttled, read_board, read_conditions, run_tool
from tests.edgekit.doctor.conftest import FIXTURES, interpreter, replayed_in

ARM64 = Interpreter(architecture="aarch64", userland_bits=64, python="3.13.5")


def board_and_conditions(name: str, root: Path, **changes: str) -> tuple[Board, Conditions]:
    probe = replayed_in(root)(name, **changes)
    return probe.board(), probe.conditions()


@pytest.mark.parametrize("path", sorted(FIXTURES.glob("*.txt")), ids=lambda path: path.stem)
def test_every_fixture_states_its_origin(path: Path) -> None:
    head = path.read_text().partition("==>")[0]
    assert re.search(r"^# (captured|composed): ", head, re.MULTILINE)
    for line in re.findall(r"^# captured: .*$", head, re.MULTILINE):
        assert "github.com/" in line


def test_a_hot_pi3bplus_is_reported_with_the_clock_of_the_firmware(tmp_path: Path) -> None:
    board, now = board_and_conditions("pi3bplus-hot", tmp_path)
    assert board == Board(
        model="Raspberry Pi 3 Model B Plus Rev 1.3",
        cpu="Cortex-A53",
        cpu_part="0xd03",
        processors=4,
        architecture="aarch64",
        userland_bits=64,
        memory_total_mib=906,
        os_release="Debian GNU/Linux 13 (trixie)",
        kernel="6.12.47+rpt-rpi-v8",
        python="3.13.5",
        virtualization="none",
    )
    assert (now.clock_mhz, now.clock_source) == (1200.126, "firmware")
    assert (now.clock_min_mhz, now.clock_max_mhz, now.governor) == (600, 1400, "ondemand")
    assert (now.temperature_c, now.memory_available_mib, now.load_1min) == (62.835, 646, 3.91)
    assert now.throttling is not None
    assert now.throttling.now == ("soft temperature limit",)
    assert now.throttling.explain() == "now: soft temperature limit; since boot: soft temperature limit"


def test_a_32_bit_system_and_flags_from_sysfs(tmp_path: Path) -> None:
    board, now = board_and_conditions("pi3b-32bit", tmp_path, interpreter=interpreter("armv7l", 32))
    assert (board.architecture, board.userland_bits, board.cpu) == ("armv7l", 32, "Cortex-A53")
    assert board.model == "Raspberry Pi 3 Model B Rev 1.2"
    assert board.virtualization == "none"
    assert (now.clock_mhz, now.clock_source) == (600, "cpufreq")
    assert now.throttling is not None
    assert now.throttling.bits == 0x50005
    assert now.throttling.now == ("under-voltage (weak power supply or cable)", "throttled")


@pytest.mark.parametrize(
    ("name", "cpu", "part", "explanation"),
    [
        ("pi4b-cool", "Cortex-A72", "0xd08", "not throttled"),
        (
            "pi5-undervoltage-past",
            "Cortex-A76",
            "0xd0b",
            "since boot: under-voltage (weak power supply or cable), throttled",
        ),
    ],
)
def test_newer_boards(tmp_path: Path, name: str, cpu: str, part: str, explanation: str) -> None:
    board, now = board_and_conditions(name, tmp_path)
    assert (board.cpu, board.cpu_part, board.virtualization) == (cpu, part, "none")
    assert now.throttling is not None
    assert now.throttling.explain() == explanation


def test_a_pc_has_its_processors_name_and_the_package_temperature(tmp_path: Path) -> None:
    board, now = board_and_conditions("pc", tmp_path, interpreter=interpreter("x86_64"))
    assert board.model == "Intel(R) Core(TM) i5-8250U CPU @ 1.60GHz"
    assert (board.cpu_part, board.virtualization) == (None, "none")
    assert (now.temperature_c, now.clock_mhz, now.throttling) == (55.0, 900, None)


@pytest.mark.parametrize(
    ("name", "expected"),
    [("qemu-user-pi3", "emulator"), ("qemu-virt-a53", "virtual machine"), ("arm-board-unknown", None)],
)
def test_virtualization_is_reported_or_unknown(tmp_path: Path, name: str, expected: str | None) -> None:
    board, _ = board_and_conditions(name, tmp_path)
    assert board.virtualization == expected


def test_a_user_mode_emulator_is_recognised_by_the_kernels_own_view_of_the_program(tmp_path: Path) -> None:
    replayed_in(tmp_path)("arm-board-unknown")
    (tmp_path / "proc/thread-self").mkdir()
    (tmp_path / "proc/thread-self/exe").symlink_to("/usr/bin/qemu-aarch64-static")
    assert read_board(tmp_path, ARM64).virtualization == "emulator"


def test_a_pc_guest_is_a_virtual_machine(tmp_path: Path) -> None:
    replayed_in(tmp_path)("pc")
    cpuinfo = tmp_path / "proc/cpuinfo"
    cpuinfo.write_text(cpuinfo.read_text().replace("avx2 fma", "avx2 hypervisor fma"))
    assert read_board(tmp_path, replace(ARM64, architecture="x86_64")).virtualization == "virtual machine"
    assert read_board(tmp_path, ARM64).virtualization == "emulator"


def test_an_empty_root_gives_nothing_and_raises_nothing(tmp_path: Path) -> None:
    board = read_board(tmp_path, ARM64)
    assert board == Board(None, None, None, None, "aarch64", 64, None, None, None, "3.13.5", None)
    assert read_conditions(tmp_path, lambda _: None) == Conditions(*[None] * 9)


def test_a_chassis_sensor_is_not_taken_for_the_processors(tmp_path: Path) -> None:
    _, now = board_and_conditions("arm-board-unknown", tmp_path)
    assert now.temperature_c is None


def test_nonsense_in_every_file_raises_nothing(tmp_path: Path) -> None:
    replayed_in(tmp_path)("pi3bplus-hot")
    for path in tmp_path.rglob("*"):
        if path.is_file():
            path.write_bytes(b"\xff\x00\n::\nCPU part\t: x\nCPU implementer : y\nMemTotal: z kB\n")
    read_board(tmp_path, ARM64)
    now = read_conditions(tmp_path, lambda _: 'error=1 error_msg="Command not registered"')
    assert (now.temperature_c, now.clock_mhz, now.throttling) == (None, None, None)


@pytest.mark.parametrize("text", ["", None, "throttled=", "VCHI initialization failed", "throttled=0xzz"])
def test_other_text_is_no_throttle_flag(text: str | None) -> None:
    assert parse_throttled(text) is None


def test_documents_are_json_and_carry_the_flags_in_words(tmp_path: Path) -> None:
    board, now = board_and_conditions("pi3bplus-hot", tmp_path)
    document = json.loads(json.dumps({"board": asdict(board), "before": now.as_document()}))
    assert document["board"]["cpu"] == "Cortex-A53"
    assert document["before"]["throttling"] == {
        "flags": "0x80008",
        "now": ["soft temperature limit"],
        "since_boot": ["soft temperature limit"],
    }


@pytest.mark.parametrize("arguments", [["edgekit-no-such-tool"], ["false"]])
def test_a_tool_that_is_missing_or_fails_gives_none(arguments: Sequence[str]) -> None:
    assert run_tool(arguments) is None


@pytest.mark.parametrize(("alarm", "expected"), [("1", ("under-voltage (weak power supply or cable)",)), ("0", ())])
def test_without_firmware_the_kernels_voltage_alarm_is_used(
    tmp_path: Path, alarm: str, expected: tuple[str, ...]
) -> None:
    # Names and files as in the kernel's drivers/hwmon/raspberrypi-hwmon.c.
    sensor = tmp_path / "sys/class/hwmon/hwmon1"
    sensor.mkdir(parents=True)
    (sensor / "name").write_text("rpi_volt\n")
    (sensor / "in0_lcrit_alarm").write_text(f"{alarm}\n")
    throttling = read_conditions(tmp_path, lambda _: None).throttling
    assert throttling is not None
    assert throttling.now == expected
    (sensor / "in0_lcrit_alarm").write_text("?\n")
    assert read_conditions(tmp_path, lambda _: None).throttling is None
