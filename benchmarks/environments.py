"""Environments of their own for the peers: what they need would not fit beside what impasto needs."""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

ROOT = Path(__file__).parent.parent


def environment(name: str, *requirements: str) -> Path:
    """The folder of the commands of an environment in the checkout, ``.venv-NAME``, made where it is missing.

    Raises SystemExit where pip can't make it.
    """
    folder = ROOT / f".venv-{name}"
    bin, made = folder / "bin", folder / "requirements"
    wanted = "\n".join(requirements)
    if not made.exists() or made.read_text() != wanted:
        print(f"{folder.name} is made, for {', '.join(requirements)}", file=sys.stderr)
        venv.create(folder, with_pip=True, clear=True)
        if subprocess.run([bin / "pip", "install", "--quiet", *requirements], check=False).returncode:
            raise SystemExit(f"{folder.name} could not be made; without --peers nothing else is needed")
        made.write_text(wanted)
    return bin


def version(bin: Path, distribution: str) -> str:
    """Which version of a distribution is in an environment."""
    code = f"from importlib.metadata import version; print(version({distribution!r}))"
    return subprocess.run([bin / "python", "-c", code], check=True, stdout=subprocess.PIPE, text=True).stdout.strip()
