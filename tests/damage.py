"""Metadata folders as crashes, disks and old tools leave them, made by a seed."""

from __future__ import annotations

import os
from pathlib import Path
from random import Random

POINTS = "[impasto.operations]\n{name}/paint = {name}:paint\n"
FOLDERS = ("{name}-1.0.dist-info", "~{tail}-1.0.dist-info", "{name}.egg-info", "{name}-1.0-py3.egg-info", ".dist-info")
METADATA: tuple[bytes | None, ...] = (
    None,
    b"",
    b"Metadata-Version: 2.1\nName: %(name)s\nVersion: 1.0\n",
    b"Metadata-Version: 2.1\nVersion: 1.0\n",
    b"Metadata-Version: 2.1\nName:\nVersion: 1.0\n",
    b"Name: \x1b[31mred\nVersion: \x00\n",
    b"Name: ../../etc\nVersion: 1.0\n",
    b"Name: Impasto\nVersion: 9.9\n",
    b"Name: impasto\n",
    b"\xff\xfe\x00broken",
    b"\n\nName: late\n",
    b"Name: %(name)s\r\nVersion: 1.0\r\n",
    b"no colon at all\n" * 50,
)
ENTRIES: tuple[bytes | None, ...] = (
    None,
    b"",
    b"[impasto.operations]\n%(name)s/paint = %(name)s:paint\n",
    b"[impasto.operations]\na line without the sign\n",
    b"[impasto.operations\n%(name)s/paint = x\n",
    b"[impasto.operations]\n = x:y\n",
    b"[impasto.operations]\n%(name)s/paint =\n",
    b"[impasto.operations]\n%(name)s/paint = not a module\n",
    b"[impasto.operations]\n%(name)s/\x1b[31m = x:y\n",
    b"[impasto.commands]\n%(name)s = %(name)s:command\n%(name)s = %(name)s:other\n",
    b"[impasto.commands]\nmodels = %(name)s:command\n",
    b"[impasto.operations]\n\xff\xfe = x:y\n",
    b"[impasto.]\nx = y:z\n[impasto.operations]\nx\n",
    b"\x00" * 100,
)


def damage(site: Path, seed: int) -> Path:
    """Make one folder of metadata; usually something is wrong with it."""
    random = Random(seed)
    name = f"damaged{seed}"
    folder = site / random.choice(FOLDERS).format(name=name, tail=name[1:])
    if os.path.lexists(folder):
        return folder
    kind = random.randrange(20)
    if kind == 0:  # a file in place of the folder
        folder.write_bytes(random.randbytes(50))
        return folder
    if kind == 1:
        folder.symlink_to(folder.name)
        return folder
    folder.mkdir()
    for file, choices in (("METADATA", METADATA), ("entry_points.txt", ENTRIES)):
        text = random.choice(choices)
        path = folder / file
        match random.randrange(14):
            case 0:
                path.mkdir()
            case 1:
                os.mkfifo(path)
            case 2:
                path.symlink_to("/dev/zero")
            case 3:
                path.symlink_to(path.name)
            case _:
                if text is not None:
                    path.write_bytes(text.replace(b"%(name)s", name.encode()))
    match random.randrange(6):
        case 0:
            (folder / "RECORD").write_bytes(random.randbytes(200))
        case 1:
            (folder / "RECORD").write_text("/dev/zero,sha256=x,1\n../x,sha256=x,1\na,sha256=x,1\n")
        case 2:
            (folder / "RECORD").write_text("impasto/metadata.py,sha256=x,1\n" * 3)
        case 3:
            os.mkfifo(folder / "RECORD")
    return folder
