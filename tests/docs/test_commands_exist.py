"""Every command of edgekit and every option that a page names exists."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from edgekit.cli import cli
from tests.docs.pages import ROOT, blocks, command_lines, pages

# Options of other programs that the pages name in text.
FOREIGN = {"--system-site-packages", "--list-cameras", "--only-binary", "--data-binary", "--teacher-"}
# Options of the package in docs/how-to/extending.md.
OF_EXAMPLES = {"--count"}
PAGES = pages()


def options_of(command: click.Command) -> set[str]:
    return {
        name for option in command.get_params(click.Context(command)) for name in (*option.opts, *option.secondary_opts)
    }


def all_options() -> set[str]:
    found, waiting = set(), [cli]
    while waiting:
        command = waiting.pop()
        found |= options_of(command)
        if isinstance(command, click.Group):
            waiting += [command.get_command(click.Context(command), name) for name in command.list_commands(None)]
    return found


def options_of_scripts() -> set[str]:
    """Return the options of the scripts in benchmarks/ and tools/, which pages also name."""
    scripts = [path for folder in ("benchmarks", "tools") for path in (ROOT / folder).rglob("*.py")]
    return {name for path in scripts for name in re.findall(r'"(--[a-z][a-z0-9-]+)', path.read_text())}


def faults_of(words: list[str]) -> list[str]:
    """Return the commands and options of a command line that do not exist; `words` does not include `edgekit`."""
    command: click.Command = cli
    for index, word in enumerate(words):
        if not isinstance(command, click.Group) or word.startswith("-") or not re.fullmatch("[a-z-]+", word):
            break
        found = command.get_command(click.Context(command), word)
        if found is None:
            return [f"command {word}"]
        command, rest = found, words[index + 1 :]
    else:
        rest = []
    if command is cli:
        rest = words
    own = rest[: rest.index("--")] if "--" in rest else rest
    known = options_of(command) | OF_EXAMPLES
    names = [word.partition("=")[0] for word in own if re.match("--?[a-zA-Z]", word)]
    return [f"option {name} of {command.name}" for name in names if name not in known]


def edgekit_words(line: str) -> list[list[str]]:
    """Return the words after `edgekit` for each edgekit command in a line of shell."""
    found = []
    for part in re.split(r"\s*(?:&&|\|\||\||;|>)\s*", line):
        match = re.match(r"(?:sudo |[A-Z_0-9]+=\S+ )*(?:\S*/)?edgekit(?: (.*))?$", part.removesuffix("…"))
        if match:
            found.append(shlex.split((match[1] or "").replace("…", "")))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_blocks_exist(page: Path) -> None:
    shell = [block for block in blocks(page.read_text()) if block.language in ("", "sh")]
    lines = [line for block in shell for line in command_lines(block.body)]
    faults = [f"{line}: {fault}" for line in lines for words in edgekit_words(line) for fault in faults_of(words)]
    assert faults == []


@pytest.mark.parametrize("page", PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_commands_in_text_exist(page: Path) -> None:
    inline = re.findall(
        r"`([^`]+)`", re.sub(r"^( *)```.*?^\1```", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)
    )
    lines = [" ".join(text.split()) for text in inline]
    faults = [f"{line}: {fault}" for line in lines for words in edgekit_words(line) for fault in faults_of(words)]
    known = all_options() | FOREIGN
    scripts = ("python", "pip", "make", "torchrun", "apt", "ssh")
    named = {
        name
        for line in lines
        if not line.startswith(scripts)
        for name in re.findall(r"(?<![\w-])--[a-z][a-z0-9-]+", line)
    }
    assert faults == []
    assert sorted(named - known - options_of_scripts()) == []
