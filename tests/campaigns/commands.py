"""Run commands with hostile words, streams, folders and variables: each ends with a message and an exit code.

Run by hand: ``python -m tests.campaigns.commands [ROUNDS] [SEED]``. It prints each run that broke the rule.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from random import Random

import attrs

LONGEST_SECONDS = 60
NEVER = (
    b"Traceback",
    b"Exception ignored",
    b"never awaited",
    b"was destroyed",
    b"Fatal Python",
    b"a fault in the program",
)
"""What no command may print; the last is the message for faults of our own."""

TEXTS: tuple[bytes, ...] = (
    *(
        b"",
        b" ",
        b"-",
        b"--",
        b"-1",
        b"0",
        b"nan",
        b"inf",
        b"1e400",
        b"9" * 400,
        b"x" * 3_000,
        b"\xff\xfe",
        b"\xed\xa0\x80",
    ),
    *("ünïcode \u202e".encode(), b"a\nb", b"\x1b[31m", b"%s%n", b"{}", b"{id", b"../../x", b"/", b".", b"~", b"a/b/c"),
    *(b"in.png", b"@in.png", b"folder", b"fifo", b"/dev/zero", b"/dev/full", b"/dev/null", b"loop", b"missing"),
    *(b"none.yaml", b"m.jsonl", b"s3://", b"s3://b/x", b"http://"),
    *(b"http://[::1", b"http://127.0.0.1:1", b"file:///x"),
    *(
        b"stability/sd3",
        b"stability/stable-image-core",
        b"stability/",
        b"/",
        b"bedrock/arn:aws:x",
        b"a=b",
        b"seed=1",
        b"=",
        b"-p",
    ),
)
COMMANDS: tuple[tuple[str, ...], ...] = (
    ("account", "--emulator"),
    ("audio", "stability/stable-audio-2.5/text-to-audio", "x", "--emulator", "-p", "duration=1"),
    ("batch", "run", "m.jsonl", "--out", "out", "--emulator"),
    ("batch", "status", "out"),
    ("batch", "report", "out"),
    ("batch", "export", "out", "--out", "set"),
    ("describe", "stability/sd3"),
    ("doctor",),
    ("edit", "stability/inpaint", "in.png", "--prompt", "x", "--emulator"),
    ("emulator", "--port", "0"),
    ("generate", "stability/stable-image-core", "x", "--emulator"),
    ("model3d", "stability/stable-fast-3d", "in.png", "--emulator"),
    ("models",),
    ("new-plugin", "acme"),
    ("plugins",),
    ("resume", "stability/upscale-creative", "a" * 64, "--emulator"),
    ("serve", "--config", "none.yaml", "--check"),
    ("try", "--no-open"),
    ("--version",),
    ("--help",),
)
OPTIONS: dict[str, tuple[str, ...]] = {
    "generate": ("-n", "-o", "-p", "--timeout", "--api-base", "--transport", "--middleware", "--json", "-f"),
    "edit": ("-n", "-o", "-p", "--mask", "--prompt", "--timeout", "--json"),
    "audio": ("-n", "-o", "-p", "--audio", "--timeout"),
    "model3d": ("-n", "-o", "-p", "--timeout"),
    "resume": ("-o", "--timeout", "--json", "-f"),
    "account": ("--organization", "--timeout", "--json", "--api-base"),
    "batch": (
        *("--budget", "--max-failures", "--timeout", "--deadline", "--rate", "--names"),
        *("--concurrency", "--out", "--json"),
    ),
    "emulator": ("--host", "--seed", "--key", "--credits", "--scale", "--answer-seconds", "--lock-seconds", "--port"),
    "serve": ("--config", "--host", "--port", "--workers", "--no-auth"),
    "new-plugin": ("-o",),
    "try": ("--out", "--all"),
}
FLAGS = ("--json", "-f", "--no-auth", "--all")
VARIABLES: tuple[tuple[str, bytes | None], ...] = (
    *(
        ("HOME", None),
        ("HOME", b"/nowhere"),
        ("PATH", None),
        ("TERM", b"dumb"),
        ("TERM", None),
        ("LANG", b"C"),
        ("LC_ALL", b"C"),
    ),
    *(
        ("LC_ALL", b"xx_YY.nothing"),
        ("COLUMNS", b"1"),
        ("COLUMNS", b"-5"),
        ("COLUMNS", b"wide"),
        ("TMPDIR", b"/nowhere"),
    ),
    *(
        ("IMPASTO_PLUGINS", b"a b"),
        ("IMPASTO_PLUGINS", b"\xff"),
        ("IMPASTO_PLUGINS", b"none"),
        ("IMPASTO_POLL_INTERVAL", b"soon"),
    ),
    *(
        ("IMPASTO_POLL_INTERVAL", b"nan"),
        ("IMPASTO_POLL_INTERVAL", b""),
        ("STABILITY_API_KEY", b"\xff"),
        ("STABILITY_API_KEY", b""),
    ),
    *(
        ("STABILITY_API_KEY", b"a\nb"),
        ("STABILITY_API_BASE", b"ftp://x"),
        ("STABILITY_API_BASE", b"\xff"),
        ("HTTPS_PROXY", b"::::"),
    ),
    *(("PYTHONIOENCODING", b"ascii"), ("PYTHONUNBUFFERED", b"1"), ("PYTHONDEVMODE", b"1"), ("NO_COLOR", b"1")),
    *(
        ("AWS_PROFILE", b"nobody"),
        ("AWS_CONFIG_FILE", b"/dev/zero"),
        ("XDG_STATE_HOME", b"/nowhere"),
        ("SSL_CERT_FILE", b"/nowhere"),
    ),
)
PLACES = ("own", "own", "own", "read-only", "deleted")
STREAMS = (
    *("", "", "", "<&-", ">&-", "2>&-", "<&- >&- 2>&-"),
    *(">/dev/full", "2>/dev/full", "| true", "< m.jsonl", "</dev/null"),
)


@attrs.frozen(kw_only=True)
class Case:
    """One run of a command."""

    words: tuple[bytes, ...]
    variables: tuple[tuple[str, bytes | None], ...]
    place: str
    streams: str


def cases(seed: int, rounds: int) -> Iterator[Case]:
    """Yield cases, the same for the same seed."""
    random = Random(seed)
    for _ in range(rounds):
        words = [word.encode() for word in random.choice(COMMANDS)]
        for _ in range(random.randrange(3)):
            option = random.choice(OPTIONS.get(words[0].decode(), ("--json",)))
            words += [option.encode()] if option in FLAGS else [option.encode(), random.choice(TEXTS)]
        if random.random() < 0.4:
            words[random.randrange(len(words))] = random.choice(TEXTS)
        if random.random() < 0.1:
            words.insert(random.randrange(len(words)), random.choice(TEXTS))
        yield Case(
            words=tuple(word for word in words if b"\0" not in word),
            variables=tuple(random.sample(VARIABLES, random.randrange(3))),
            place=random.choice(PLACES),
            streams=random.choice(STREAMS),
        )


def broken(case: Case, folder: Path) -> str | None:
    """Run a case in a new folder; return the rule that it broke, with the output, or None."""
    from tests.images import png

    folder.mkdir()
    (folder / "in.png").write_bytes(png(512, 512))
    (folder / "folder").mkdir()
    os.mkfifo(folder / "fifo")
    (folder / "loop").symlink_to("loop")
    (folder / "m.jsonl").write_text('{"id": "a", "model": "stability/stable-image-core", "prompt": "x"}\n')
    environment: dict[bytes, bytes] = {os.fsencode(name): os.fsencode(value) for name, value in os.environ.items()}
    for name, value in case.variables:
        environment.pop(name.encode(), None)
        if value is not None:
            environment[name.encode()] = value
    before = {"deleted": b"rmdir gone; ", "read-only": b"", "own": b""}[case.place]
    where = folder
    if case.place == "deleted":
        (where := folder / "gone").mkdir()
        before = b"rmdir ../gone 2>/dev/null; "
    elif case.place == "read-only":
        folder.chmod(0o500)
    line = before + b'exec "$@" ' if "|" not in case.streams else before + b'"$@" '
    streams = case.streams.replace("< m.jsonl", f"< '{folder}/m.jsonl'").encode()
    command = [b"sh", b"-c", line + streams, b"sh", os.fsencode(sys.executable), b"-m", b"impasto", *case.words]
    process = subprocess.Popen(
        command,
        cwd=where,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )
    serves = case.words[:1] == (b"emulator",)
    try:
        out, err = process.communicate(timeout=8 if serves else LONGEST_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGTERM if serves else signal.SIGKILL)  # a parent may ignore SIGINT
        out, err = process.communicate()
        if not serves:
            return f"hangs: {err[-500:]!r}"
    finally:
        folder.chmod(0o700)
    text = out + err
    if bad := next((each for each in NEVER if each in text), None):
        return f"prints {bad.decode()}: {text[-1500:].decode(errors='replace')}"
    if "|" not in case.streams and process.returncode not in (0, 1, 2, 130):
        return f"ends with {process.returncode}: {text[-500:]!r}"
    if process.returncode and not text.strip() and not any(mark in case.streams for mark in ">|"):
        return f"ends with {process.returncode} and no message: {out[-300:]!r}"
    return None


def main() -> int:
    """Run the campaign and return its exit code."""
    rounds, seed = (int(word) for word in (*sys.argv[1:], *("200", "1")[len(sys.argv) - 1 :]))
    failures = 0
    with tempfile.TemporaryDirectory() as folder:
        for number, case in enumerate(cases(seed, rounds)):
            where = Path(folder, str(number))
            if (rule := broken(case, where)) is not None:
                failures += 1
                print(f"--- {number}: {case}\n{rule}\n", flush=True)
            shutil.rmtree(where, ignore_errors=True)
    print(f"{rounds} runs, {failures} broke the rule")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
