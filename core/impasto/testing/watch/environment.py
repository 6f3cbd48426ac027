"""The environment of a check: what its author has set for other programs changes no verdict."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from unittest.mock import patch

_FOREIGN = re.compile(
    r"(IMPASTO|AWS|LC|LITELLM)_.*|.*_(API_BASE|BASE_URL|API_KEY|KEY|TOKEN|SECRET)|(.*_)?PROXY|LANG(UAGE)?"
    r"|SSL_CERT_(FILE|DIR)|(REQUESTS|CURL)_CA_BUNDLE|NO_COLOR|FORCE_COLOR|COLUMNS|LINES"
    r"|PYTHON(WARNINGS|ASYNCIODEBUG|IOENCODING|UTF8|OPTIMIZE|DEVMODE|STARTUP)",
    re.IGNORECASE,
)
_FIXED = {
    "LC_ALL": "C.UTF-8",
    "PYTHONUTF8": "1",
    "AWS_CONFIG_FILE": os.devnull,
    "AWS_SHARED_CREDENTIALS_FILE": os.devnull,
    "AWS_EC2_METADATA_DISABLED": "true",
}


@contextmanager
def plain_environment() -> Iterator[None]:
    """Remove settings of impasto, proxies, keys, addresses and the locale for a block."""
    foreign = [name for name in os.environ if _FOREIGN.fullmatch(name)]
    with patch.dict(os.environ):
        for name in foreign:
            del os.environ[name]
        os.environ.update(_FIXED)
        yield
