"""What a type checker must refuse: each line is marked ``error:`` with mypy's codes for it. It is not run."""

from __future__ import annotations

from io import StringIO

import impasto


async def misuses(client: impasto.Client) -> None:
    """Mistakes that types can catch before anything is paid."""
    await client.run(5)  # error: arg-type
    await client.run("stability/sd3", n="2")  # error: arg-type
    await client.run("stability/sd3", timeout="1")  # error: arg-type
    await client.run("stability/sd3", retry=3)  # error: arg-type
    await client.resume("stability/sd3")  # error: call-arg
    impasto.Client(api_kye="x")  # error: call-arg
    impasto.Client(timeout="1")  # error: arg-type
    impasto.Client("sk-...")  # error: call-arg, arg-type
    client.with_options(registry=None)  # error: call-arg
    impasto.Retry(4)  # error: call-arg
    impasto.Artifact(data=b"", media_type="image/png").data = b"x"  # error: misc
    impasto.image_generation("a", n="2")  # error: call-overload
    await impasto.aimage_edit(5, "stability/erase")  # error: call-overload
    await impasto.aimage_edit(StringIO(), "stability/erase")  # error: call-overload
    impasto.Clinet()  # error: attr-defined
