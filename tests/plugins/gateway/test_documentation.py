"""docs/gateway.md names every setting, and no record of the configuration is left out."""

from __future__ import annotations

import re
from pathlib import Path

import attrs
import pytest

from impasto_plugins.gateway.config.model import (
    BatchesConfig,
    DeploymentParams,
    FilesConfig,
    GeneralSettings,
    KeyConfig,
    LiteLLMSettings,
    ModelInfo,
    S3Config,
)

PAGE = (Path(__file__).parents[3] / "docs" / "gateway.md").read_text("utf-8")


@pytest.mark.parametrize(
    "record",
    [DeploymentParams, ModelInfo, LiteLLMSettings, GeneralSettings, KeyConfig, FilesConfig, S3Config, BatchesConfig],
)
def test_every_setting_is_told(record: type[attrs.AttrsInstance]) -> None:
    names = set(re.findall(r"`(?:[a-z_0-9]+\.)?([a-z_0-9]+)`", PAGE))
    assert set(attrs.fields_dict(record)) - names == set()
