"""The emulator as a process of its own, with times that are short, and its account of charges."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import attrs

POLL_SECONDS = "0.05"


@attrs.frozen
class Provider:
    """A running emulator."""

    url: str

    @property
    def environment(self) -> Mapping[str, str]:
        """How the command line finds it."""
        return {
            "STABILITY_API_BASE": self.url,
            "STABILITY_API_KEY": "sk-" + "campaign" * 4,
            "IMPASTO_POLL_INTERVAL": POLL_SECONDS,
        }

    def charges(self) -> Counter[int]:
        """How often each seed was charged: each picture of a manifest has its own."""
        return Counter(charge["seed"] for charge in self._fetch("charges")["charges"])

    def usd(self) -> float:
        """The sum of its charges."""
        return float(sum(charge["usd"] for charge in self._fetch("charges")["charges"]))

    def statuses(self) -> list[int]:
        """The statuses of its answers, as far as it remembers them."""
        return [request["status"] for request in self._fetch("requests")["requests"]]

    def reset(self) -> None:
        """Forgets all charges."""
        self._fetch("reset", b"")

    def faults(self, faults: Sequence[Mapping[str, object]]) -> None:
        """What goes wrong from now on."""
        self._fetch("faults", json.dumps(faults).encode())

    def _fetch(self, what: str, body: bytes | None = None) -> dict[str, list[dict[str, Any]]]:
        with urllib.request.urlopen(f"{self.url}/_emulator/{what}", body, timeout=30) as answer:
            payload: dict[str, list[dict[str, Any]]] = json.load(answer)
            return payload


@contextmanager
def provider(*options: str) -> Iterator[Provider]:
    """Starts one, with options of ``impasto emulator``."""
    fast = ("--port", "0", "--scale", "0.02", "--rate-seconds", "0.001", "--job-seconds", "0.2")
    command = [sys.executable, "-m", "impasto_plugins.cli", "emulator", *fast, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Provider(process.stdout.readline().split()[3])
        finally:
            process.terminate()
