"""Home Assistant with its MQTT integration: `python home_assistant.py FOLDER PORT`, with a Python that has it.

For each line on stdin it prints the states of all MQTT entities, and its warnings, as one JSON line. The line "rename
ENTITY NAME" gives an entity another name before. At the end of stdin it stops and saves its registries, so that another
start on the same folder continues.
"""

from __future__ import annotations

import asyncio
import json
import logging
import socket
import sys
from pathlib import Path
from typing import Any

from homeassistant import bootstrap, loader
from homeassistant.auth import auth_manager_from_config
from homeassistant.components.mqtt.config_flow import FlowHandler
from homeassistant.config_entries import ConfigEntries, ConfigEntry
from homeassistant.core import HomeAssistant
from homeassistant.helpers import entity_registry
from homeassistant.setup import async_setup_component


class Log(logging.Handler):
    """Keeps the warnings and errors."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record.getMessage())


async def start(folder: str, port: int) -> HomeAssistant:
    """Start Home Assistant, whose MQTT integration needs its web server."""
    Path(folder, "configuration.yaml").touch()
    home = HomeAssistant(folder)
    home.config.skip_pip = True
    loader.async_setup(home)
    home.config_entries = ConfigEntries(home, {})
    await bootstrap.async_load_base_functionality(home)
    home.auth = await auth_manager_from_config(home, [{"type": "homeassistant"}], [])
    await home.config_entries.async_initialize()
    await async_setup_component(home, "homeassistant", {})
    await async_setup_component(home, "http", {"http": {"server_host": "127.0.0.1", "server_port": free_port()}})
    if not home.config_entries.async_entries("mqtt"):
        await home.config_entries.async_add(mqtt_entry(port))
    else:
        await async_setup_component(home, "mqtt", {})
    await home.async_start()
    await home.async_block_till_done()
    return home


def free_port() -> int:
    """Return a port on which no other program listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def mqtt_entry(port: int) -> ConfigEntry:
    """Return the entry that the user makes in "Settings", "Devices & services"."""
    return ConfigEntry(
        data={"broker": "127.0.0.1", "port": port},
        discovery_keys={},  # type: ignore[arg-type]
        domain="mqtt",
        minor_version=FlowHandler.MINOR_VERSION,
        options={},
        source="user",
        subentries_data=None,
        title="broker",
        unique_id=None,
        version=FlowHandler.VERSION,
    )


def states(home: HomeAssistant) -> dict[str, Any]:
    """Return state, attributes and unique id of each entity that MQTT has in the registry."""
    found: dict[str, Any] = {}
    for entry in entity_registry.async_get(home).entities.values():
        state = home.states.get(entry.entity_id)
        found[entry.entity_id] = {
            "unique_id": entry.unique_id,
            "name": entry.name,
            "state": state and state.state,
            "attributes": dict(state.attributes) if state else {},
        }
    return found


async def main(folder: str, port: int) -> None:
    """Answer lines on stdin."""
    log = Log()
    logging.getLogger().addHandler(log)
    home = await start(folder, port)
    while line := await asyncio.to_thread(sys.stdin.readline):
        if line.startswith("rename "):
            _, entity_id, name = line.split()
            entity_registry.async_get(home).async_update_entity(entity_id, name=name)
        await home.async_block_till_done()
        print(json.dumps({"entities": states(home), "log": log.lines}, default=str), flush=True)
    await home.async_stop()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
