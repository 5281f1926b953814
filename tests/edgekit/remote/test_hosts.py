"""Accepted and refused addresses and inventories of boards."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.errors import InputError
from edgekit.remote.hosts import Host, HostOptions, check_different, parse_host, read_inventory, select, ssh_arguments


@pytest.mark.parametrize(
    "text", ["pi", "pi@raspberrypi.local", "pi@192.168.1.20", "fe80::1%eth0", "user_1@my-board", "::1"]
)
def test_valid_hosts(text: str) -> None:
    assert parse_host(text).address == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-oProxyCommand=x",
        "pi@-x",
        "a b",
        "$(x)",
        "a\x1b[2J",
        "pi@raspberrypi.local:2222",
        "x" * 400,
    ],
)
def test_hosts_with_special_characters_are_refused(text: str) -> None:
    with pytest.raises(InputError, match="is not \\[user@\\]name") as error:
        parse_host(text)
    assert str(error.value).isprintable()


def test_an_inventory_names_boards(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text('[[host]]\nhost = "pi@a"\nlabel = "kitchen"\nport = 2222\nidentity = "key"\n[[host]]\nhost = "b"\n')
    kitchen, other = read_inventory(path, Host("", "", 22, ssh_options=("-4",)))
    assert (kitchen.address, kitchen.label, kitchen.port) == ("pi@a", "kitchen", 2222)
    assert kitchen.identity == tmp_path / "key"
    assert (other.address, other.label, other.port, other.ssh_options) == ("b", "b", 22, ("-4",))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "must contain only"),
        ('[[host]]\nhost = "a;b"', "host 1.*is not \\[user@\\]name"),
        (
            '[[host]]\nhost = "a"\nssh_options = ["-oProxyCommand=x"]',
            "must not set ssh options, which can run programs",
        ),
        ('[[host]]\nhost = "a"\nport = 70000', "port must be"),
        ('[[host]]\nhost = "a"\nlabel = "\\u001b[2J"', "label must be"),
        ('[[host]]\nhost = "a"\npassword = "x"', "unknown field 'password'"),
    ],
)
def test_bad_inventories_are_refused_with_one_line(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "boards.toml"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=message) as error:
        read_inventory(path)
    assert str(error.value).isprintable()


def test_duplicate_hosts_are_refused() -> None:
    check_different([parse_host("a"), parse_host("b")])
    with pytest.raises(InputError, match="host given twice: a"):
        check_different([parse_host("a"), parse_host("a")])


def test_labels_and_addresses_select_boards_in_the_order_of_the_inventory() -> None:
    hosts = [parse_host(name) for name in ("a", "b", "c")]
    assert select(hosts, ()) == hosts
    assert select([Host("pi@10.0.0.5", "door"), *hosts], ("pi@10.0.0.5",)) == [Host("pi@10.0.0.5", "door")]
    assert select(hosts, ("c", "a")) == [hosts[0], hosts[2]]
    with pytest.raises(InputError, match=r"no board has the label or address 'd': the labels are a, b, c$"):
        select(hosts, ("a", "d"))


@pytest.mark.parametrize(
    ("words", "arguments"),
    [
        (("ProxyJump=bastion",), ("-o", "ProxyJump=bastion")),
        (("-J", "bastion", "UserKnownHostsFile=a b"), ("-J", "bastion", "-o", "UserKnownHostsFile=a b")),
        (("-o", "Port=2"), ("-o", "Port=2")),
        (("-4", "-Fa"), ("-4", "-Fa")),
    ],
)
def test_ssh_options_as_in_its_configuration_or_as_its_own_arguments(
    words: tuple[str, ...], arguments: tuple[str, ...]
) -> None:
    assert ssh_arguments(words) == arguments


@pytest.mark.parametrize("words", [("bastion",), ("-4", "bastion"), ("-J", "bastion", "other"), ("\x1b[2J",)])
def test_a_value_that_ssh_would_read_as_the_host_is_refused(words: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="is neither Name=value nor an option of ssh") as error:
        ssh_arguments(words)
    assert str(error.value).isprintable()


def test_a_byte_order_mark_before_an_inventory_is_skipped(tmp_path: Path) -> None:
    path = tmp_path / "boards.toml"
    path.write_text('[[host]]\nhost = "a"\n', encoding="utf-8-sig")
    assert [host.address for host in read_inventory(path)] == ["a"]


def test_a_missing_private_key_is_named_before_connecting(tmp_path: Path) -> None:
    options = HostOptions(host=("pi@kitchen",), identity=tmp_path / "absent")
    with pytest.raises(InputError, match="absent"):
        options.hosts()
    (tmp_path / "absent").touch()
    assert [each.identity for each in options.hosts()] == [tmp_path / "absent"]
