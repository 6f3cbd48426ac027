"""Methods of aiohttp that ours override or depend on: a new release that changes one needs a look before it is used.

They decide what counts as sent, and so as charged. After the look, put the new digest here.
"""

from __future__ import annotations

import hashlib
import inspect
import textwrap

import pytest
from aiohttp import base_protocol, client_proto, client_reqrep, connector, streams, web_protocol, web_server

DIGESTS = {
    base_protocol.BaseProtocol: {"_drain_helper": "f119731d1ec3092f"},
    client_proto.ResponseHandler: {
        "data_received": "f4892860cc4fcba6",
        "should_close": "67dfbace44c24b1a",
        "set_response_params": "e311a98daa46f615",
        "connection_lost": "95e38e833510169c",
        "start_timeout": "af290a14500d5f14",
    },
    client_reqrep.ClientRequest: {
        "__init__": "b0a576c41bfe681d",
        "connection_key": "37aa76ae0404d1d3",
        "update_host": "4ec738ea1f59f010",
        "update_auto_headers": "e6d301e13c6cd1c8",
    },
    streams.DataQueue: {"read": "c9efe90b29f931a3"},
    streams.StreamReader: {"at_eof": "3359e51ab1e25302", "readany": "2e2cb75d9dad01d0"},
    connector.BaseConnector: {
        "connect": "752dbbbd61faf8e2",
        "_get": "c309b6839d060d08",
        "_release": "efb388c6174bdb43",
    },
    connector.TCPConnector: {"__init__": "87d00d0c7f4629f5", "_create_connection": "8f38c744a6cbfd7e"},
    web_protocol.RequestHandler: {
        "__init__": "bfe44b4b794d2437",
        "connection_made": "ebfd82e6ee00b134",
        "connection_lost": "03c8e00617bec1a8",
        "eof_received": "cf1db74cbefe2709",
        "data_received": "24e16c8dad9a27a6",
        "start": "861cf19d1d08c05c",
        "finish_response": "ed4b58494924613b",
        "handle_error": "9f172560bd847f0a",
        "log_access": "2abb68aac52c09ec",
        "log_exception": "541791b06f1bd1a8",
    },
    web_server.Server: {
        "__init__": "da000b8c6d57b475",
        "__call__": "18104105a644d93c",
        "shutdown": "9e126f44ed27e417",
    },
}


@pytest.mark.parametrize(
    ("owner", "name", "digest"),
    [(owner, name, digest) for owner, digests in DIGESTS.items() for name, digest in digests.items()],
    ids=lambda value: getattr(value, "__name__", value),
)
def test_an_overridden_method_of_aiohttp_is_as_it_was(owner: type, name: str, digest: str) -> None:
    method = vars(owner)[name]
    source = textwrap.dedent(inspect.getsource(getattr(method, "fget", method)))
    assert hashlib.sha256(source.encode()).hexdigest()[:16] == digest
