"""Connections to a broker that fail and recover: certificates, logins over TLS, changed addresses, only IPv6."""

from __future__ import annotations

import gc
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from edgekit.device.events import Event
from edgekit.device.sinks.mqtt.session import MqttSettings
from edgekit.device.sinks.mqtt.sink import MqttSink
from tests.runs import run_of
from tests.waiting import wait_until

OPENSSL = shutil.which("openssl")
PASSWORDS = shutil.which("mosquitto_passwd")


@pytest.fixture(autouse=True)
def state_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))


@pytest.fixture
def open_sink(broker, notices: list[str]) -> Iterator[Callable[..., MqttSink]]:
    with ExitStack() as stack:

        def start(url: str, credentials: str | None = None, **options) -> MqttSink:
            settings = MqttSettings.parse(f"{url}:{broker.port}", credentials, **{"topic": "edgekit/test"} | options)
            sink = MqttSink(settings, run_of(notices.append), pauses_s=(0.1,))
            stack.enter_context(sink)
            sink.post(Event("run-0", 1, "sad", None, 0.9, 1.0, 0, 0.0, 1.7e9))
            return sink

        yield start


def delivered(sink: MqttSink) -> bool:
    return sink._account.as_document()["written"] == 1


Certify = Callable[..., Path]


@pytest.fixture
def certify(broker, tmp_path: Path) -> Certify:
    """Return a function that gives the broker a self-signed certificate; its options are passed to openssl."""
    if OPENSSL is None:
        pytest.skip("no openssl here: apt install openssl")
    certificate, key = tmp_path / "broker.pem", tmp_path / "broker.key"
    broker.lines += [f"certfile {certificate}", f"keyfile {key}"]

    def certify(*options: str, name: str = "localhost") -> Path:
        command = [OPENSSL, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", f"/CN={name}"]
        command += ["-addext", f"subjectAltName=DNS:{name}", "-keyout", str(key), "-out", str(certificate), *options]
        done = subprocess.run(command, capture_output=True, text=True)
        if "not_before" in done.stderr:
            pytest.skip("openssl before 3.4 cannot make such a certificate")
        assert done.returncode == 0, done.stderr
        return certificate

    return certify


# paho does not close the socket of a failed handshake; the garbage collector closes it.
@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize(
    ("options", "name", "reason"),
    [
        (("-not_before", "20200101000000Z", "-not_after", "20200201000000Z"), "localhost", "certificate has expired"),
        # A board whose clock is in the past gets this error.
        (("-not_before", "21000101000000Z", "-not_after", "21000201000000Z"), "localhost", "is not yet valid"),
        ((), "elsewhere", "Hostname mismatch"),
    ],
    ids=["expired", "not yet valid", "other name"],
)
def test_a_certificate_that_is_not_valid_is_reported_and_its_successor_accepted(
    broker, certify, open_sink, notices, tmp_path, options, name, reason
):
    wrong = certify(*options, name=name)
    trusted = shutil.copy(wrong, tmp_path / "trusted.pem")
    broker.start()
    sink = open_sink("mqtts://localhost", ca=Path(trusted))
    wait_until(lambda: notices != [])
    assert reason in notices[0]
    assert "events are buffered" in notices[0]
    sink.write(None, None)
    broker.kill()
    Path(trusted).write_bytes(certify().read_bytes())
    broker.start()
    wait_until(lambda: delivered(sink))
    assert notices[-1] == "MQTT broker reconnected, 1 buffered event"


@pytest.mark.filterwarnings("ignore:Exception ignored in. <ssl.SSLSocket:pytest.PytestUnraisableExceptionWarning")
def test_a_certificate_that_expires_during_the_run_is_reported_after_the_lost_connection(
    broker, certify, open_sink, notices, tmp_path
):
    trusted = shutil.copy(certify(), tmp_path / "trusted.pem")
    broker.start()
    sink = open_sink("mqtts://localhost", ca=Path(trusted))
    wait_until(lambda: delivered(sink))
    broker.kill()
    expired = certify("-not_before", "20200101000000Z", "-not_after", "20200201000000Z")
    Path(trusted).write_bytes(expired.read_bytes())
    wait_until(lambda: notices != [])
    broker.start()
    wait_until(lambda: "certificate has expired" in notices[-1])
    broker.kill()
    Path(trusted).write_bytes(certify().read_bytes())
    broker.start()
    wait_until(lambda: notices[-1] == "MQTT broker reconnected")


@pytest.mark.skipif(PASSWORDS is None, reason="no mosquitto_passwd here: apt install mosquitto")
def test_a_login_refused_over_tls_is_reported_and_accepted_once_the_broker_has_it(
    broker, certify, open_sink, notices, tmp_path
):
    certificate = certify()
    passwords = tmp_path / "passwords"
    passwords.write_text("")
    passwords.chmod(0o600)
    broker.lines[1] = f"password_file {passwords}"
    broker.start()
    sink = open_sink("mqtts://localhost", "door:right-word", ca=certificate)
    wait_until(lambda: notices != [])
    assert "connection rejected: Not authorized; events are buffered" in notices[0]
    assert "right-word" not in notices[0]
    subprocess.run([PASSWORDS, "-b", str(passwords), "door", "right-word"], check=True, capture_output=True)
    broker.kill()
    broker.start()
    wait_until(lambda: delivered(sink))


def test_a_broker_that_changes_its_address_is_found_by_its_name(broker, open_sink, notices, monkeypatch):
    """The name is resolved at each connection; the test replaces the name server."""
    look_up = socket.getaddrinfo

    def name_server(host, *arguments, **options):
        return look_up(broker.host if host == "broker.test" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", name_server)
    broker.start()
    sink = open_sink("mqtt://broker.test")
    wait_until(lambda: delivered(sink))
    broker.kill()
    wait_until(lambda: notices != [])
    broker.move("127.0.0.2")
    broker.start()
    with ExitStack() as stack:
        listener = broker.listen(stack)
        sink.post(Event("run-1", 1, "sad", None, 0.9, 1.0, 1, 0.0, 1.7e9))
        wait_until(lambda: listener.sequences() == [1])


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_a_broker_with_an_ipv6_address_only(broker, open_sink, notices):
    broker.move("::1")
    sink = open_sink("mqtt://[::1]")
    wait_until(lambda: notices != [])
    assert notices == [f"MQTT broker [::1]:{broker.port}: [Errno 111] Connection refused; events are buffered"]
    broker.start()
    wait_until(lambda: delivered(sink))


def test_failed_connections_leave_no_open_files(broker, notices):
    settings = MqttSettings.parse(f"mqtt://127.0.0.1:{broker.port}", None, topic="edgekit/t")
    gc.collect()
    gc.disable()
    try:
        with MqttSink(settings, run_of(notices.append), pauses_s=(0.001,)) as sink:
            with broker_that_closes(broker.port) as served:
                wait_until(lambda: len(served) > 5)
                before = open_files()
                wait_until(lambda: len(served) > 60)
            assert open_files() < before + 20
            sink.write(None, None)
    finally:
        gc.enable()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@contextmanager
def broker_that_closes(port: int) -> Iterator[list[bytes]]:
    """Run a broker that closes each connection after the request; yield the requests."""
    served: list[bytes] = []

    def serve() -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                with client:
                    served.append(client.recv(1000))

    with socket.create_server(("127.0.0.1", port)) as listener:
        thread = threading.Thread(target=serve)
        thread.start()
        yield served
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def test_pauses_grow_while_another_client_with_the_same_id_takes_the_connection(broker, notices):
    indices = []

    class Pauses(tuple):
        def __getitem__(self, index):
            indices.append(index)
            return super().__getitem__(index)

    broker.start()
    settings = MqttSettings.parse(f"mqtt://127.0.0.1:{broker.port}", None, topic="edgekit/pi")
    with ExitStack() as stack:
        # The listener connects again whenever its connection is closed.
        broker.listen(stack, client_id=settings.client_id)
        stack.enter_context(MqttSink(settings, run_of(notices.append), pauses_s=Pauses((0.1, 0.2, 0.3))))
        wait_until(lambda: len(indices) >= 3)
    assert indices[:3] == [0, 1, 2]
    assert "the connection was lost after 0 s (if this repeats: a machine with the same host name uses" in notices[0]
