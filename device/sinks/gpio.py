"""`--gpio`: pins that are on while a label holds, and a button. The only module that imports gpiozero."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from edgekit.device.sink import Sink, SinkOptions
from edgekit.errors import InputError, TemporaryError
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.detections import FrameResult
    from edgekit.device.frame import Frame
    from edgekit.device.sinks.context import RunContext

# The numbers of a Pi's header that a program can use.
_PINS = range(2, 28)
# Without newer results, as after the camera is lost, a pin goes off.
_MOST_AGE_S = 3.0
_CHECK_EVERY_S = 0.5
# A button's contact opens and closes several times within this time; that is one press.
_BOUNCE_S = 0.05


def parse_pin(text: str) -> tuple[int, str]:
    """Return number and label of the text `PIN=LABEL`.

    Raises:
        InputError: The text is not of this form.
    """
    number, _, label = text.partition("=")
    if not label:
        raise InputError(f"'{text}' is not of the form PIN=LABEL: write for example 17=happy")
    return _pin(number), label


def _pin(text: str) -> int:
    if not text.isdecimal() or int(text) not in _PINS:
        raise InputError(f"'{text}' is no pin: give a GPIO number (BCM), {_PINS[0]} to {_PINS[-1]}")
    return int(text)


@dataclass(frozen=True, kw_only=True)
class GpioOptions(SinkOptions):
    """Options of pins."""

    title = "Events"

    gpio: tuple[tuple[int, str], ...] = option(
        "--gpio",
        "A pin (GPIO number) that is on while a face or image has this label, such as 17=happy. It switches after the "
        "label has been there, or away, for the time of --event-hold. Repeatable.",
        default=(),
        metavar="PIN=LABEL",
        parse=parse_pin,
        several=True,
    )
    gpio_button: int | None = option(
        "--gpio-button",
        "A pin with a button to ground. A press saves the next frame, like the MQTT command snapshot.",
        metavar="PIN",
        parse=_pin,
        needs="--event-snapshots",
    )

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink.

        Raises:
            InputError: A label is not one of the model, a pin has two uses, or gpiozero is missing.
            TemporaryError: The pins cannot be used: there are none, or another program has them.
        """
        if not self.gpio and self.gpio_button is None:
            return None
        run.check_labels("--gpio", (label for _, label in self.gpio))
        pins = [pin for pin, _ in self.gpio] + ([] if self.gpio_button is None else [self.gpio_button])
        if len(set(pins)) < len(pins):
            raise InputError("a pin has two uses: give each pin one label, and the button another pin")
        return GpioSink(dict(self.gpio), self.gpio_button, run)


@dataclass
class _Pin:
    """A pin that a label switches.

    Attributes:
        label: The label.
        led: The output of gpiozero.
        is_on: The state that was set last.
        differs_since_s: Presentation time of the first frame since which every frame wants the other state; None: the
            latest frame wants this state.
    """

    label: str
    led: Any
    is_on: bool = False
    differs_since_s: float | None = None


class GpioSink(Sink):
    """Switches pins by the labels of each frame; all are off at the end, and without results.

    A pin is switched when the frames have wanted its other state for the time of --event-hold, without a break. So a
    label that flickers does not switch a relay.
    """

    def __init__(self, labels: Mapping[int, str], button: int | None, run: RunContext) -> None:
        """Reserve the pins. Raises as `GpioOptions.open`.

        Args:
            labels: The label that switches each pin.
            button: The pin of the button; None: there is no button.
            run: The run.
        """
        from edgekit.device.frame import presentation_time_s

        gpiozero = _gpiozero()
        self._hold_s = run.links.hold_s
        self._time_s = presentation_time_s(run.source)
        self._account = run.account("pins")
        self._notify = run.notify
        self._lock = threading.Lock()
        self._results_s = time.monotonic()  # when the latest result came
        self._has_failed = False
        self._ended = threading.Event()  # ends `_watch`
        self._watch = threading.Thread(target=self._switch_off_without_results, name="edgekit gpio", daemon=True)
        self._pins: dict[int, _Pin] = {}
        # Closes the reserved pins if a later one cannot be reserved.
        with ExitStack() as devices:
            try:
                for number, label in labels.items():
                    # gpiozero calls any output that is on or off an LED.
                    self._pins[number] = _Pin(label, devices.enter_context(gpiozero.LED(number)))
                if button is not None and run.links.snapshots is not None:
                    pressed = devices.enter_context(gpiozero.Button(button, bounce_time=_BOUNCE_S))
                    pressed.when_pressed = run.links.snapshots.request
            except Exception as error:  # gpiozero and its backends have classes of their own
                reason = str(error) or type(error).__name__
                raise TemporaryError(
                    f"the pins cannot be used ({reason}): run edgekit on a Pi, as a user of the group gpio, and end "
                    "other programs that use them"
                ) from error
            self._devices = devices.pop_all()

    def __enter__(self) -> Self:
        self._watch.start()
        return self

    def __exit__(self, *exception: object) -> None:
        """Switch all pins off."""
        self._ended.set()
        with self._lock:
            self._switch_all_off()
            self._devices.close()

    def write(self, frame: Frame, result: FrameResult) -> None:
        """Switch each pin whose other state has been wanted long enough."""
        labels = {face.label for face in result.faces if not face.uncertain}
        now_s = self._time_s(frame)
        with self._lock:
            self._results_s = time.monotonic()
            for number, pin in self._pins.items():
                is_wanted_on = pin.label in labels
                if is_wanted_on == pin.is_on:
                    pin.differs_since_s = None
                    continue
                if pin.differs_since_s is None:
                    pin.differs_since_s = now_s
                if now_s - pin.differs_since_s >= self._hold_s:
                    self._switch(number, pin, is_wanted_on)

    def _switch_off_without_results(self) -> None:
        while not self._ended.wait(_CHECK_EVERY_S):
            with self._lock:
                if time.monotonic() - self._results_s > _MOST_AGE_S and not self._ended.is_set():
                    self._switch_all_off()

    def _switch_all_off(self) -> None:
        """Switch the pins off at once. The caller holds the lock."""
        for number, pin in self._pins.items():
            pin.differs_since_s = None
            if pin.is_on:
                self._switch(number, pin, is_on=False)

    def _switch(self, number: int, pin: _Pin, is_on: bool) -> None:
        """Set the state of a pin. A failure is counted, and the first one is reported. The caller holds the lock."""
        self._account.produce()
        try:
            pin.led.value = is_on
        except Exception as error:  # the backend's own classes
            self._account.drop("pin failed")
            if not self._has_failed:
                self._notify(f"pin {number} cannot be switched ({error}): the run continues")
            self._has_failed = True
        else:
            pin.is_on, pin.differs_since_s = is_on, None
            self._account.write()


def _gpiozero() -> Any:
    """Return the module gpiozero; raise InputError if it cannot be imported."""
    try:
        import gpiozero
    except ImportError as error:
        from edgekit.install_hint import from_debian, install_command

        # For edgekit from Debian, `install_command` itself is one of apt.
        or_apt = "" if from_debian() else ", or sudo apt install python3-gpiozero python3-lgpio"
        raise InputError(f"--gpio needs gpiozero ({error}): run {install_command('gpio')}{or_apt}") from error
    return gpiozero
