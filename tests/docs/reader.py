"""A reader who does what a page shows, from its top to its end, in a folder of their own."""

from __future__ import annotations

import ast
import inspect
import json
import os
import re
import runpy
import shlex
import signal
import subprocess
import tomllib
from collections.abc import Callable, Iterator
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path

from click.testing import CliRunner

from impasto_plugins.cli.main import main
from impasto_plugins.gateway.config.loader import parse
from tests.docs.pages import Block

GATEWAY = "http://127.0.0.1:4000"
DATABASE = "postgresql://impasto:secret@database.example/impasto"
EMULATOR = "http://127.0.0.1:8008"
SERVERS = ("impasto serve", "impasto emulator")
_PROMPT = re.compile(r"^\$ ", re.MULTILINE)
_SHELLS_OWN = frozenset("|&;<>()$`")


class Reader:
    """``addresses``: where the servers are that a page calls by their usual ports. ``fixture`` gives those that a test
    on a page takes. ``said`` is all output so far."""

    def __init__(self, folder: Path, addresses: dict[str, str], fixture: Callable[[str], object]) -> None:
        self.folder = folder
        self.addresses = addresses
        self.fixture = fixture
        self.output = ""
        self._servers: list[subprocess.Popen[str]] = []

    def read(self, block: Block) -> None:
        """Does what a block shows."""
        match block.language:
            case "python":
                self._python(block.text)
            case "sh":
                self._shell(block.text)
            case "console":
                self._console(block.text)
            case "yaml":
                (self.folder / "config.yaml").write_text(block.text)
                parse(block.text.encode(), environment={**os.environ})
            case "json":
                (self.folder / "shots.jsonl").write_text(block.text)
                assert list(_values(block.text))
            case "toml":
                assert tomllib.loads(block.text)
            case "py":
                ast.parse(f"{block.text.strip()}: ...")
            case "text":
                pass  # a drawing, or what a program says
            case "nginx":
                pass  # tests/plugins/gateway/replicas/test_nginx.py runs it
            case other:
                raise AssertionError(f"nobody knows what to do with {other!r}")

    def close(self) -> None:
        """Ends the servers that were started: they end in peace."""
        for server in self._servers:
            server.send_signal(signal.SIGTERM)
        for server in self._servers:
            output = server.communicate(timeout=30)
            assert server.returncode == 0, output

    def _python(self, text: str) -> None:
        path = self.folder / "block.py"
        path.write_text(self._here(text))
        with redirect_stdout(StringIO()) as output:
            result = runpy.run_path(str(path), run_name="__main__")
            for name, test in result.items():
                if name.startswith("test_"):
                    test(*map(self.fixture, inspect.signature(test).parameters))
        self.output += output.getvalue()

    def _shell(self, text: str) -> str:
        commands = text.replace("\\\n", " ").strip().splitlines()
        if all(line.startswith("impasto ") and not _SHELLS_OWN & set(_unquoted(line)) for line in commands):
            return "".join(map(self._impasto, commands))
        return self._ran(["sh", "-e", "-c", self._here(text)])

    def _impasto(self, line: str) -> str:
        """The command in this process: to start one takes longer than what it does."""
        done = CliRunner().invoke(main, shlex.split(self._here(line), comments=True)[1:], prog_name="impasto")
        assert done.exit_code == 0, f"{line}\n{done.output}\n{done.exception!r}"
        assert done.stderr == "", line
        self.output += done.stdout
        return done.stdout

    def _console(self, text: str) -> None:
        for part in _PROMPT.split(text)[1:]:
            command, expected = _split(part)
            message = self._started(command, expected) if _is_server(command) else self._shell(command)
            if expected:
                assert message == self._here(expected), command

    def _started(self, command: str, expected: str) -> str:
        """Starts a server where there is room, and reads as much as it is said to say."""
        server = subprocess.Popen(
            [*shlex.split(command), "--port", "0"], cwd=self.folder, stdout=subprocess.PIPE, text=True
        )
        self._servers.append(server)
        assert server.stdout is not None
        output = "".join(server.stdout.readline() for _ in expected.splitlines())
        (address,) = {*re.findall(r"http://[\d.]+:\d+", output)}
        self.addresses[GATEWAY if "serve" in command else EMULATOR] = address
        return output

    def _ran(self, words: list[str]) -> str:
        done = subprocess.run(words, cwd=self.folder, capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
        self.output += done.stdout
        return done.stdout

    def _here(self, text: str) -> str:
        """A text with the servers' usual addresses replaced by the real ones."""
        if DATABASE in text:
            self.addresses.setdefault(DATABASE, str(self.fixture("postgres")))
        for usual, real in self.addresses.items():
            text = text.replace(usual, real)
        return text


def _is_server(command: str) -> bool:
    return command.startswith(SERVERS) and "--check" not in command


def _split(part: str) -> tuple[str, str]:
    """A command, which goes on where its line ends in a backslash, and what it is said to say."""
    lines = part.splitlines(keepends=True)
    ends = next(i for i, line in enumerate(lines) if not line.endswith("\\\n")) + 1
    return "".join(lines[:ends]).strip(), "".join(lines[ends:])


def _unquoted(line: str) -> str:
    return re.sub(r"'[^']*'", "", line)


def _values(text: str) -> Iterator[object]:
    """One JSON text, or one on each line."""
    try:
        yield json.loads(text)
    except ValueError:
        yield from map(json.loads, text.splitlines())
