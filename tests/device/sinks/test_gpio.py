"""Pins that labels switch, with gpiozero's own mock pins."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest

from edgekit.device.sinks.events import EventOptions
from edgekit.device.sinks.gpio import GpioOptions, parse_pin
from edgekit.errors import InputError, TemporaryError
from tests.device.conftest import Feed
from tests.runs import counts, run_of
from tests.waiting import wait_until

gpiozero = pytest.importorskip("gpiozero", reason="no gpiozero here: pip install gpiozero")


@pytest.fixture(autouse=True)
def pins() -> Iterator[Callable[[int], Any]]:
    """Put mock pins in the place of a Pi's; return the function that returns a pin."""
    from gpiozero.pins.mock import MockFactory

    gpiozero.Device.pin_factory = MockFactory()
    yield gpiozero.Device.pin_factory.pin
    gpiozero.Device.pin_factory.close()
    gpiozero.Device.pin_factory = None


def test_a_pin_is_on_while_its_label_holds_and_off_at_the_end(pins, notices):
    run = run_of(notices.append)
    sink = GpioOptions(gpio=((17, "happy"), (27, "sad"))).open(run)
    feed, seen = Feed(), []
    with sink:
        for labels in (("happy",), ("happy", "sad"), ("sad",), ("uncertain",), (), ("happy",)):
            sink.write(*feed.next(*labels, uncertain="uncertain" in labels))
            seen.append((bool(pins(17).state), bool(pins(27).state)))
    assert seen == [(True, False), (True, True), (False, True), (False, False), (False, False), (True, False)]
    assert not pins(17).state
    assert counts(run, "pins") == {"produced": 6, "written": 6, "dropped": {}, "waiting": 0}


def test_a_label_that_flickers_does_not_switch_a_pin(pins, notices):
    run = run_of(notices.append)
    assert EventOptions(event_hold=1.0).open(run) is not None
    sink = GpioOptions(gpio=((17, "happy"),)).open(run)
    feed, flicker = Feed(), ["happy", "sad"] * 10
    # Half a second between two frames.
    labels = [*flicker, "happy", "happy", "happy", *flicker, "sad", "uncertain", "sad"]
    seen = []
    with sink:
        for number, label in enumerate(labels):
            sink.write(*feed.next(label, at_s=number / 2))
            seen.append(bool(pins(17).state))
    assert seen == [number in range(22, 44) for number in range(len(labels))]
    assert counts(run, "pins")["written"] == 2


def test_pins_are_off_after_an_error_and_free_for_the_next_run(pins, notices):
    options = GpioOptions(gpio=((17, "happy"),))
    for _ in range(2):
        sink = options.open(run_of(notices.append))
        with suppress(ZeroDivisionError), sink:
            sink.write(*Feed().next("happy"))
            assert pins(17).state
            raise ZeroDivisionError
        assert not pins(17).state


def test_a_pin_goes_off_when_no_results_arrive(pins, notices):
    sink = GpioOptions(gpio=((17, "happy"),)).open(run_of(notices.append))
    with sink:
        sink.write(*Feed().next("happy"))
        wait_until(lambda: not pins(17).state)
        sink.write(*Feed().next("happy"))
        assert pins(17).state


def test_the_button_requests_a_snapshot(pins, notices, tmp_path):
    run = run_of(notices.append)
    snapshots = EventOptions(event_snapshots=tmp_path).open(run)
    button = GpioOptions(gpio_button=22).open(run)
    feed = Feed()
    with snapshots, button:
        snapshots.write(*feed.next())
        assert list(tmp_path.iterdir()) == []
        pins(22).drive_low()
        wait_until(lambda: snapshots.write(*feed.next()) or list(tmp_path.glob("*-snapshot-*.jpg")))


def test_a_pin_that_fails_is_reported_once_and_counted(pins, notices):
    run = run_of(notices.append)
    sink = GpioOptions(gpio=((17, "happy"),)).open(run)
    feed = Feed()
    with sink:
        pins(17).close()
        pins(17)._set_state = lambda _: 1 / 0
        for label in ("happy", "sad", "happy"):
            sink.write(*feed.next(label))
        del pins(17)._set_state
    assert len(notices) == 1
    assert counts(run, "pins")["dropped"] == {"pin failed": 2}


@pytest.mark.parametrize(
    "options",
    [
        {"gpio": ((17, "cheerful"),)},
        {"gpio": ((17, "happy"), (17, "sad"))},
        {"gpio": ((17, "happy"),), "gpio_button": 17},
    ],
)
def test_an_unknown_label_and_a_pin_with_two_uses_are_refused(notices, options):
    with pytest.raises(InputError):
        GpioOptions(**options).open(run_of(notices.append))


def test_a_pin_is_a_number_and_a_label():
    assert parse_pin("17=happy") == (17, "happy")
    for text in ("17", "x=happy", "99=happy"):
        with pytest.raises(InputError):
            parse_pin(text)


def test_a_machine_without_pins_is_a_temporary_error(notices, monkeypatch):
    monkeypatch.setattr(gpiozero.Device, "pin_factory", None)
    monkeypatch.setenv("GPIOZERO_PIN_FACTORY", "native")
    with pytest.raises(TemporaryError):
        GpioOptions(gpio=((17, "happy"),)).open(run_of(notices.append))
