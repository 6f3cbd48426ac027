"""docs/gateway.md names every setting, and no record of the configuration is left out."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from impasto_gateway.config import S3, Files, General, Info, Named, Params, Wording
from impasto_gateway.config_yaml import parse

PAGE = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text("utf-8")


@pytest.mark.parametrize("record", [Params, Info, Wording, General, Named, Files, S3])
def test_every_setting_is_told(record: type[attrs.AttrsInstance]) -> None:
    told = set(re.findall(r"`(?:[a-z_0-9]+\.)?([a-z_0-9]+)`", PAGE))
    assert set(attrs.fields_dict(record)) - told == set()


def test_the_example_is_sound() -> None:
    (example,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    environment = {"STABILITY_API_KEY": "k", "IMPASTO_MASTER_KEY": "m" * 24}
    config = parse(example.replace("6b86…", "6b" * 32).encode(), environment=environment)
    assert [entry.model_name for entry in config.models] == ["sd3", "sd3"]
