"""Defects of the JSON plugin that block the loop, read the disk, or show the key."""

from __future__ import annotations

from collections.abc import Mapping

from tests.core.testing.form_plugin import Defect

_PACK = "# PACK"
_IMPORT = "# IMPORT"

DEFECTS: Mapping[str, Defect] = {
    "it looks for a file": Defect(
        changes={_IMPORT: "import os", _PACK: "os.path.exists('/etc/acme')"},
        check="no_hook_reads_the_disk_or_waits",
        says="it looks for a file on the loop's thread",
    ),
    "a file is read for moderation": Defect(
        changes={
            'body.get("status") == "moderated":': 'body.get("status") == "moderated":\n'
            "                open(__file__).close()"
        },
        check="no_hook_reads_the_disk_or_waits",
        says="it opens a file on the loop's thread",
    ),
    "a short block for several images": Defect(
        changes={
            _IMPORT: "import time",
            "artifacts, errors = [], []": "artifacts, errors = [], []\n"
            "        until = time.thread_time() + (len(entries) > 1) * 0.05\n"
            "        while time.thread_time() < until: pass",
        },
        check="the_loop_is_not_blocked",
        says="each call blocks the loop for",
    ),
    "the key in a log of its own": Defect(
        changes={_IMPORT: "import logging", _PACK: "logging.getLogger('acme').debug('%s', dict(account.headers))"},
        check="no_message_and_no_log_holds_the_key",
        says="the key is in: ",
    ),
    "a file is read on the loop": Defect(
        changes={_PACK: "for each in files.values():\n            with each.open() as f: f.read()"},
        check="no_hook_reads_the_disk_or_waits",
        says="it opens a file on the loop's thread",
    ),
    "it sleeps": Defect(
        changes={_IMPORT: "import time", _PACK: "time.sleep(0.001)"},
        check="no_hook_reads_the_disk_or_waits",
        says="it sleeps on the loop's thread",
    ),
    "it looks up a host": Defect(
        changes={_IMPORT: "import socket", _PACK: 'socket.getaddrinfo("localhost", 80)'},
        check="no_hook_reads_the_disk_or_waits",
        says="it looks up a host name on the loop's thread",
    ),
}
