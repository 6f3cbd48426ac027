"""Calls that can't be recorded."""

from __future__ import annotations

import os

import pytest

from impasto.ext import StateError
from impasto_plugins.gateway.errors import APIError
from impasto_plugins.gateway.storage.failures import storage_required


@pytest.mark.parametrize("error", [StateError("disk I/O error"), OSError(28, os.strerror(28))])
def test_without_storage_a_call_is_refused_and_may_be_repeated(error: Exception) -> None:
    with pytest.raises(APIError, match="nothing was sent, try again") as caught, storage_required():
        raise error
    answer = caught.value.to_response()
    assert answer.status == 503
    assert (answer.headers["retry-after"], answer.headers["x-should-retry"]) == ("5", "true")


def test_a_caller_who_left_is_no_fault_of_the_storage() -> None:
    with pytest.raises(ConnectionResetError), storage_required():
        raise ConnectionResetError
