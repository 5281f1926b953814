"""MQTT commands to a running `edgekit run`, with a real broker and a real stream."""

from __future__ import annotations

import json
import signal
from contextlib import ExitStack


def test_a_run_pauses_resumes_and_takes_snapshots_by_command(broker, start, play, tmp_path, monkeypatch):
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path / "state"))
    broker.start()
    config = tmp_path / "edgekit.toml"
    config.write_text(f"""
mqtt = "mqtt://127.0.0.1:{broker.port}"
mqtt-topic = "edgekit/test"
mqtt-commands = "pause, snapshot"
event-snapshots = "{tmp_path / "snapshots"}"
send-snapshots = true
event-label = ["green"]
""")
    with ExitStack() as stack:
        listener = broker.listen(stack)
        server = play([("pictures", 100_000, (64, 48))])
        run = start("--source", server.url, "--config", config)

        def state() -> dict:
            messages = listener.on("edgekit/test/state")
            return json.loads(messages[-1]) if messages else {}

        def send(command: str) -> None:
            import paho.mqtt.publish

            paho.mqtt.publish.single("edgekit/test/command", command, qos=1, port=broker.port, hostname="127.0.0.1")

        run.until(lambda: state().get("faces") == 1)
        send("snapshot")
        run.until(lambda: listener.on("edgekit/test/command-snapshot"))
        send("pause")
        run.until(lambda: state().get("paused"))
        served = server.served
        send("resume")
        # The pause released the stream, so the run opens it again.
        run.until(lambda: server.served == served + 1)
        run.until(lambda: state().get("faces") == 1)
        send("pause")
        run.until(lambda: listener.on("edgekit/test/paused") == [b"OFF", b"ON", b"OFF", b"ON"])
        run.process.send_signal(signal.SIGTERM)
        assert run.end() == 0
    document = json.loads(run.document)
    assert document["commands"] == {"pause": 2, "resume": 1, "snapshot": 1}
    assert document["paused_s"] > 0
    assert document["outputs"]["event snapshots"] == {"produced": 1, "written": 1, "dropped": {}, "waiting": 0}
    (image,) = (tmp_path / "snapshots").iterdir()
    assert image.read_bytes() == listener.on("edgekit/test/command-snapshot")[0]
    assert "lost" not in run.stderr_text
