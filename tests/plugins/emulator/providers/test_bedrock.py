"""The emulator as Amazon Bedrock, judged by boto3, by hand and by impasto: ids, regions, keys."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote

import attrs
import pytest
from botocore.auth import SigV4Auth
from botocore.awsrequest import AWSRequest
from botocore.credentials import ReadOnlyCredentials
from botocore.exceptions import ClientError

import impasto
from impasto import Operation
from impasto_plugins.emulator import SHORT, Emulator, EmulatorSettings, serve
from tests.bedrock import ACCESS_KEY, KEYS, SECRET_KEY, SESSION_TOKEN
from tests.plugins.emulator.conftest import Wire, open_image, started
from tests.plugins.stability.bedrock_cases import MODELS, OUTPAINT, SD35, minimal

from .bedrock_wire import (
    ACCOUNT,
    APPLICATION,
    CORE,
    SETTINGS,
    SKETCH,
    InvokeAnswer,
    body_of,
    boto,
    code,
    emulator,
    in_boto3,
    invoke,
    refused,
    shared,
)

__all__ = ["boto", "emulator", "shared"]

# boto3 and impasto side by side


@pytest.mark.parametrize("operation", MODELS.values(), ids=MODELS)
async def test_boto3_receives_the_same_bytes(emulator: Emulator, boto: Any, operation: Operation) -> None:
    params = minimal(operation) | ({"seed": 7} if "seed" in operation.fields else {})
    async with impasto.Client(**KEYS, bedrock_endpoint=emulator.url) as client:
        ours = await client.invoke(f"bedrock/{operation.target}", params)
    answer = await asyncio.to_thread(boto.invoke_model, modelId=operation.target, body=json.dumps(body_of(params)))
    body = json.loads(answer["body"].read())
    if "seed" in operation.fields:
        assert (body["seeds"], ours.artifacts[0].seed) == ([7], 7)
        assert base64.b64decode(body["images"][0]) == ours.artifacts[0].data
    assert body.keys() == {"seeds", "finish_reasons", "images"}
    assert body["finish_reasons"] == [None]
    assert open_image(base64.b64decode(body["images"][0])).size == open_image(ours.artifacts[0].data).size
    assert (answer["contentType"], answer["ResponseMetadata"]["RetryAttempts"]) == ("application/json", 0)
    assert answer["ResponseMetadata"]["RequestId"] == emulator.requests[-1].id
    assert [charge.usd for charge in emulator.charges] == [ours.cost.usd if ours.cost else None] * 2
    assert {charge.operation for charge in emulator.charges} == {operation.id}


@pytest.mark.parametrize("operation", MODELS.values(), ids=MODELS)
async def test_every_model_is_found_by_both_kinds_of_id(emulator: Emulator, operation: Operation) -> None:
    """A service by its profile's id and by its bare one, which goes out as the profile's; a generator by its bare id,
    and all of them by ARN."""
    bare = operation.target.removeprefix("us.")
    models = {f"bedrock/{operation.target}", f"bedrock/{bare}"}
    if operation.target.startswith("us."):
        arn = f"arn:aws:bedrock:us-west-2:{ACCOUNT}:inference-profile/{operation.target}"
    else:
        arn = f"arn:aws:bedrock:us-west-2::foundation-model/{operation.target}"
    async with impasto.Client(**KEYS, bedrock_endpoint=emulator.url) as client:
        for model in models:
            assert (await client.invoke(model, minimal(operation))).artifacts
            assert emulator.requests[-1].target == f"/model/{operation.target}/invoke"
        by_arn = await client.invoke(f"bedrock/{arn}", minimal(operation), base_model=f"bedrock/{bare}")
        assert by_arn.artifacts
        assert emulator.requests[-1].target == f"/model/{arn}/invoke"
    assert len(emulator.charges) == len(models) + 1


async def test_an_application_profile_is_called_with_a_base_model(emulator: Emulator, boto: Any) -> None:
    body = body_of(minimal(MODELS[SKETCH]))
    answer = await asyncio.to_thread(boto.invoke_model, modelId=APPLICATION, body=json.dumps(body))
    assert json.loads(answer["body"].read())["images"]
    async with impasto.Client(**KEYS, bedrock_endpoint=emulator.url) as client:
        params = minimal(MODELS[SKETCH])
        assert (await client.invoke(f"bedrock/{APPLICATION}", params, base_model=f"bedrock/{SKETCH}")).artifacts
        other = APPLICATION.replace("abc", "xyz")
        with pytest.raises(impasto.NotFound, match="ResourceNotFoundException"):
            await client.invoke(f"bedrock/{other}", params, base_model=f"bedrock/{SKETCH}")


async def test_one_client_reaches_both_providers_in_its_own_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """No key is needed, and none of the environment's is used."""
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIAREAL")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "real")
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "real")
    client = impasto.Client(transport="emulator", providers={"emulator": {"image_scale": 0.03125}})
    async with client:
        direct, bedrock = await asyncio.gather(
            client.run("stability/stable-image-core", prompt="p"), client.run(f"bedrock/{CORE}", prompt="p")
        )
        assert direct.cost is not None
        assert bedrock.cost is not None
        assert (direct.cost.credits, bedrock.cost.credits, bedrock.cost.usd) == (3, None, 0.04)
        sibling = client.with_options(aws_access_key_id="AKIAREAL", aws_secret_access_key="real")
        with pytest.raises(impasto.Unauthorized):
            await sibling.run(f"bedrock/{CORE}", prompt="p")
    with pytest.raises(impasto.ClientClosedError):
        await client.run(f"bedrock/{CORE}", prompt="p")


# ids


@pytest.mark.parametrize("id", [SD35, quote(SD35, safe=""), SD35.replace("-", "%2D")])
async def test_ids_are_decoded_once(wire: Wire, id: str) -> None:
    assert (await invoke(wire, id, {"prompt": "p"}))[0] == 200


async def test_ids_are_not_decoded_twice(wire: Wire) -> None:
    message = refused(await invoke(wire, SD35.replace(":", "%253A"), {"prompt": "p"}), "ValidationException", 400)
    assert message == "The provided model identifier is invalid."


async def test_an_arn_is_found_with_and_without_its_slash_encoded(wire: Wire) -> None:
    arn = f"arn:aws:bedrock:us-west-2::foundation-model/{SD35}"
    for id in (arn, quote(arn, safe="")):
        assert (await invoke(wire, id, {"prompt": "p"}))[0] == 200


@pytest.mark.parametrize(
    "id",
    [
        f"us.{CORE}",
        f"us.{SD35}",
        f"eu.{SKETCH.removeprefix('us.')}",
        "us.us.stability.stable-outpaint-v1:0",
        "amazon.nova-canvas-v1:0",
        "stability.stable-outpaint-v1",
        "arn:aws:bedrock:us-west-2:1:inference-profile/" + SKETCH,
        f"arn:aws:bedrock:us-west-2:{ACCOUNT}:foundation-model/{SD35}",
        f"arn:aws:bedrock:us-west-2::foundation-model/{SKETCH}",
        f"arn:aws:bedrock:us-west-2::inference-profile/{SKETCH}",
        f"arn:aws:bedrock:us-west-2:{ACCOUNT}:inference-profile/us.{SD35}",
        f"arn:aws:bedrock:us-west-2:{ACCOUNT}:inference-profile/{SD35}",
        f"arn:aws:s3:us-west-2:{ACCOUNT}:inference-profile/{SKETCH}",
    ],
)
async def test_unknown_ids_are_refused(wire: Wire, id: str) -> None:
    answer = await invoke(wire, id, {"prompt": "p"})
    assert refused(answer, "ValidationException", 400) == "The provided model identifier is invalid."


@pytest.mark.parametrize("target", [target for target in MODELS if target.startswith("us.")])
async def test_a_service_can_not_be_called_by_its_bare_id(wire: Wire, target: str) -> None:
    bare = target.removeprefix("us.")
    message = refused(await invoke(wire, bare, minimal(MODELS[OUTPAINT]) and {}), "ValidationException", 400)
    assert message.startswith(f"Invocation of model ID {bare} with on-demand throughput isn\u2019t supported. Retry")


async def test_an_unknown_application_profile_is_not_found(wire: Wire) -> None:
    refused(await invoke(wire, quote(APPLICATION, safe=""), {}), "ResourceNotFoundException", 404)


async def test_other_paths_and_methods_are_not_found(wire: Wire) -> None:
    for method, path in (("GET", f"/model/{SD35}/invoke"), ("POST", f"/model/{SD35}/converse"), ("POST", "/model/")):
        status, headers, body = await wire.send(method, path, data=b"{}")
        refused((status, headers, json.loads(body)), "UnknownOperationException", 404)


# regions


def test_a_model_is_served_in_its_regions_only(emulator: Emulator) -> None:
    picture = json.dumps(body_of(minimal(MODELS[SKETCH])))
    for region, serves_generators, serves_services in (
        ("us-west-2", True, True),
        ("us-east-1", False, True),
        ("us-east-2", False, True),
        ("eu-west-1", False, False),
    ):
        client = in_boto3(emulator, region_name=region)
        for id, body, operations in ((CORE, '{"prompt":"p"}', serves_generators), (SKETCH, picture, serves_services)):
            if operations:
                assert client.invoke_model(modelId=id, body=body)["contentType"] == "application/json"
            else:
                with pytest.raises(client.exceptions.ValidationException, match="model identifier is invalid"):
                    client.invoke_model(modelId=id, body=body)
        client.close()


def test_an_arn_of_another_region_is_refused(emulator: Emulator, boto: Any) -> None:
    arn = f"arn:aws:bedrock:us-east-1:{ACCOUNT}:inference-profile/{SKETCH}"
    with pytest.raises(boto.exceptions.ValidationException, match="model identifier is invalid"):
        boto.invoke_model(modelId=arn, body=json.dumps(body_of(minimal(MODELS[SKETCH]))))


# keys


def test_a_wrong_secret_and_an_unknown_key_are_refused(emulator: Emulator) -> None:
    for changes, expected in (
        ({"aws_secret_access_key": SECRET_KEY + "x"}, ("InvalidSignatureException", 403)),
        ({"aws_access_key_id": "AKIAOTHER"}, ("UnrecognizedClientException", 403)),
    ):
        client = in_boto3(emulator, **changes)
        with pytest.raises(ClientError) as caught:
            client.invoke_model(modelId=CORE, body='{"prompt":"p"}')
        assert code(caught) == expected
        client.close()
    assert emulator.charges == []


async def test_the_clients_error_says_what_to_check(emulator: Emulator) -> None:
    for changes, message in (
        ({"aws_secret_access_key": "wrong" * 8}, "InvalidSignatureException .*: check the secret access key"),
        ({"aws_access_key_id": "AKIAOTHER012345"}, "UnrecognizedClientException .*: AWS does not know the access key"),
    ):
        async with impasto.Client(**{**KEYS, **changes}, bedrock_endpoint=emulator.url) as client:  # type: ignore[arg-type]  # settings of a test
            with pytest.raises(impasto.Unauthorized, match=message) as caught:
                await client.run(f"bedrock/{CORE}", prompt="p")
            assert (caught.value.billed, caught.value.retryable) == ("no", False)
            assert caught.value.request_id == emulator.requests[-1].id
    assert len(emulator.requests) == 2


async def signed(wire: Wire, *, at: datetime, service: str = "bedrock", drop: str = "") -> InvokeAnswer:
    """A call signed by botocore, at another time or for another service."""
    url = f"{wire.emulator.url}/model/{CORE}/invoke"
    request = AWSRequest("POST", url, headers={"accept": "*/*"}, data=b'{"prompt":"p"}')
    request.context["timestamp"] = at.strftime("%Y%m%dT%H%M%SZ")
    signer = SigV4Auth(ReadOnlyCredentials(ACCESS_KEY, SECRET_KEY, None), service, "us-west-2")
    request.headers["X-Amz-Date"] = request.context["timestamp"]
    canonical = signer.canonical_request(request)
    request.headers["Authorization"] = (
        f"AWS4-HMAC-SHA256 Credential={signer.scope(request)}, "
        f"SignedHeaders={signer.signed_headers(signer.headers_to_sign(request))}, "
        f"Signature={signer.signature(signer.string_to_sign(request, canonical), request)}"
    )
    headers = {name: value for name, value in request.headers.items() if name != drop}
    status, answered, body = await wire.send(
        "POST", f"/model/{CORE}/invoke", key=None, data=b'{"prompt":"p"}', headers=headers
    )
    return status, answered, json.loads(body)


async def test_a_wrong_clock_or_scope_is_refused() -> None:
    async with started(**SETTINGS) as wire:
        now = datetime.now(UTC)
        assert (await signed(wire, at=now))[0] == 200
        assert (await signed(wire, at=now - timedelta(minutes=4)))[0] == 200
        for minutes in (-6, 6):
            answer = await signed(wire, at=now + timedelta(minutes=minutes))
            assert "expired" in refused(answer, "RequestExpired", 400)
        refused(await signed(wire, at=now, service="s3"), "InvalidSignatureException", 403)
        refused(await signed(wire, at=now, drop="X-Amz-Date"), "IncompleteSignature", 400)
        refused(await signed(wire, at=now, drop="Authorization"), "MissingAuthenticationTokenException", 403)


async def test_invalid_authorization_headers_are_refused(wire: Wire) -> None:
    for header in ("Basic dXNlcjpwYXNz", "AWS4-HMAC-SHA256 Credential=a", "nonsense"):
        answer = await invoke(wire, CORE, {"prompt": "p"}, key=None, authorization=header)
        refused(answer, "IncompleteSignature", 400)
    for header in ("Bearer ", "Bearer"):
        answer = await invoke(wire, CORE, {"prompt": "p"}, key=None, authorization=header)
        refused(answer, "AccessDeniedException", 403)
    assert wire.emulator.charges == []


async def test_bearer_keys_are_checked(emulator: Emulator, monkeypatch: pytest.MonkeyPatch) -> None:
    """boto3's own bearer key; and of a list of keys only those."""
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-api-key-1")
    client = await asyncio.to_thread(in_boto3, emulator)
    await asyncio.to_thread(client.invoke_model, modelId=CORE, body='{"prompt":"p"}')
    client.close()
    async with started(keys=("bedrock-api-key-1",)) as wire:
        assert (await invoke(wire, CORE, {"prompt": "p"}, key="bedrock-api-key-1"))[0] == 200
        refused(await invoke(wire, CORE, {"prompt": "p"}, key="bedrock-api-key-2"), "AccessDeniedException", 403)
        assert "bedrock-api-key" not in str(wire.emulator.requests)


def test_session_tokens_are_checked() -> None:
    with serve(attrs.evolve(SHORT, **SETTINGS, session_tokens=(SESSION_TOKEN,))) as emulator:
        for token, expected in (
            (SESSION_TOKEN, None),
            ("old", "ExpiredTokenException"),
            (None, "ExpiredTokenException"),
        ):
            client = in_boto3(emulator, aws_session_token=token)
            if expected is None:
                client.invoke_model(modelId=CORE, body='{"prompt":"p"}')
            else:
                with pytest.raises(ClientError) as caught:
                    client.invoke_model(modelId=CORE, body='{"prompt":"p"}')
                assert code(caught) == (expected, 403)
            client.close()


# settings


def test_settings_show_no_secret() -> None:
    settings = EmulatorSettings(aws_keys={ACCESS_KEY: SECRET_KEY}, session_tokens=(SESSION_TOKEN,))
    assert SECRET_KEY not in repr(settings)
    assert SESSION_TOKEN not in repr(settings)
