"""Check of accelerators for nets: which there are, and whether an engine for their files is installed."""

from __future__ import annotations

from dataclasses import dataclass

from edgekit.doctor.probe import Finding, Probe


@dataclass(frozen=True)
class Accelerator:
    """An accelerator, how it is recognised, and the suffix of its model files.

    `ids` are PCI or USB ids, vendor:device. `sensor` is the name of an I2C device. `device` is the file that its driver
    makes; None: it needs none.
    """

    name: str
    suffix: str
    ids: tuple[str, ...] = ()
    sensor: str | None = None
    device: str | None = None


ACCELERATORS = (
    Accelerator("Hailo-8", ".hef", ("1e60:2864",), device="dev/hailo0"),
    Accelerator("Hailo-10H or Hailo-15H", ".hef", ("1e60:45c4",), device="dev/hailo0"),
    Accelerator("Coral Edge TPU (PCIe)", ".tflite", ("1ac1:089a",), device="dev/apex_0"),
    # The first id is that before the firmware is loaded, by the first program that uses it.
    Accelerator("Coral Edge TPU (USB)", ".tflite", ("1a6e:089a", "18d1:9302")),
    Accelerator("IMX500 (AI Camera)", ".rpk", sensor="imx500"),
)
_BUSES = (("sys/bus/pci/devices", "vendor", "device"), ("sys/bus/usb/devices", "idVendor", "idProduct"))


def accelerators(probe: Probe) -> Finding | None:
    """List the accelerators and whether an engine for their files is installed; None if there are none.

    Models run on the processor without one, so a missing engine or driver is no fault.
    """
    ids, sensors = _ids(probe), _sensors(probe)
    texts = []
    for each in ACCELERATORS:
        if ids.isdisjoint(each.ids) and each.sensor not in sensors:
            continue
        driver = ""
        if each.device is not None and not (probe.root / each.device).exists():
            driver = f", without a driver (/{each.device} is missing)"
        has_engine = each.suffix.removeprefix(".") in probe.environment.engines
        use = "an engine" if has_engine else "not used: no engine"
        texts.append(f"{each.name}{driver}, {use} for {each.suffix} files is installed")
    return Finding("accelerator", "ok", "; ".join(texts)) if texts else None


def _ids(probe: Probe) -> set[str]:
    found = set()
    for folder, vendor, product in _BUSES:
        for path in sorted((probe.root / folder).glob(f"*/{vendor}")):
            base = path.parent.relative_to(probe.root)
            parts = [(probe.line(f"{base}/{name}") or "").removeprefix("0x") for name in (vendor, product)]
            found.add(":".join(parts))
    return found


def _sensors(probe: Probe) -> set[str]:
    names = sorted((probe.root / "sys/bus/i2c/devices").glob("*/name"))
    return {probe.line(str(path.relative_to(probe.root))) or "" for path in names}
