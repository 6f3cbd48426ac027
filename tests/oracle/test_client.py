"""``client.run`` against the contract: each bound of each field from both sides, the wire, the descriptions."""

from __future__ import annotations

from typing import Any

import pytest

import impasto
from tests.images import padded
from tests.oracle.contract import BEDROCK, BEDROCK_WIRE, EVERY, STABILITY, WIRE, Contract
from tests.oracle.entrances import Run, judge
from tests.oracle.recording import ACCOUNT, JOB, Provider
from tests.oracle.samples import Values, foreign_fields, full_requests, minimal_request, request, sample_size
from tests.oracle.wire import ACCESS_KEY, KEY, SECRET_KEY, check, check_poll

pytestmark = pytest.mark.asyncio(loop_scope="module")  # one client and one server for all requests

of_every = pytest.mark.parametrize("contract", EVERY, ids=lambda contract: f"{contract.provider}-{contract.id}")


@of_every
async def test_each_bound_is_kept_and_nothing_beyond_is_sent(
    client: impasto.Client, provider: Provider, contract: Contract
) -> None:
    await judge(Run(client, provider), contract)


@of_every
async def test_each_name_of_a_model_sends_the_same(
    client: impasto.Client, provider: Provider, contract: Contract
) -> None:
    for values in full_requests(contract):
        for model in contract.models:
            provider.clear()
            await client.run(model, **values)
            check(contract, values, provider.requests[0])


async def test_every_model_has_a_contract(client: impasto.Client) -> None:
    theirs = {model for model in client.models() if model.startswith(("stability/", "bedrock/"))}
    assert theirs == {model for contract in EVERY for model in contract.models}


@of_every
async def test_no_other_field_is_taken(client: impasto.Client, provider: Provider, contract: Contract) -> None:
    provider.clear()
    for name, value in foreign_fields(contract):
        with pytest.raises(impasto.InvalidRequest) as caught:
            await client.run(contract.model, **{**minimal_request(contract), name: value})
        assert [problem.field for problem in caught.value.problems] == [name]
    assert not provider.requests


@of_every
async def test_a_description_says_what_the_vendor_says(client: impasto.Client, contract: Contract) -> None:
    description = client.describe(contract.model)
    fields = {field.name: field for field in description.fields}
    beside = BEDROCK_WIRE["headers"] if contract.provider == "bedrock" else {}
    assert {*contract.fields} == fields.keys() - {*beside, *contract.open}
    for name, field in contract.fields.items():
        described = fields[name]
        assert described.required == field.required, name
        assert described.default == field.default, name
        if not field.is_file:
            assert {*field.choices} <= {*described.choices} <= {*field.choices, *field.open}, name
            assert (described.minimum or 0) == (field.least or 0), name
            assert field.most in (None, described.maximum), name
    assert contract.limit in (None, description.max_bytes)


@of_every
async def test_the_price_is_the_vendors(client: impasto.Client, contract: Contract) -> None:
    description = client.describe(contract.model)
    result = await client.run(contract.model, **minimal_request(contract))
    assert result.cost is not None
    if contract.credits_by_steps is None:
        usd = contract.usd if contract.credits is None else contract.credits / 100
        for price in (description, result.cost):
            assert price.credits == contract.credits
            assert price.usd == pytest.approx(usd)
        return
    base, each = contract.credits_by_steps
    steps = contract.fields["steps"]
    for more in ({"steps": steps.least}, {"steps": steps.most}, {}):
        values: Values = {**minimal_request(contract), **more}
        result = await client.run(contract.model, **values)
        assert result.cost is not None
        assert result.cost.credits == pytest.approx(base + each * values.get("steps", steps.default))


OF_A_LIMIT = [(contract, name) for contract in EVERY if contract.limit is not None for name in contract.files]


@pytest.mark.parametrize(
    ("contract", "name"), OF_A_LIMIT, ids=[f"{contract.provider}-{contract.id}-{name}" for contract, name in OF_A_LIMIT]
)
async def test_a_request_has_at_most_the_bytes_that_the_vendor_takes(
    client: impasto.Client, provider: Provider, contract: Contract, name: str
) -> None:
    assert contract.limit is not None

    async def send(size: int) -> int:
        """Return the bytes of the whole request around an image of this size."""
        provider.clear()
        await client.run(
            contract.model, **request(contract, name, padded(size, *sample_size(contract.fields[name].limits)))
        )
        return int(provider.requests[0].header("content-length") or 0)

    step = 3 if contract.provider == "bedrock" else 1  # base64 writes three bytes as four
    overhead = await send(6000) - 6000 * (4 if step == 3 else 1) // step
    most = (contract.limit - overhead) * step // (4 if step == 3 else 1) // step * step
    assert contract.limit - 4 < await send(most) <= contract.limit
    provider.clear()
    with pytest.raises(impasto.InvalidRequest) as caught:
        await send(most + step)
    assert [problem.field for problem in caught.value.problems] == [name]
    assert not provider.requests


@pytest.mark.parametrize("contract", [c for c in STABILITY if c.results], ids=lambda contract: contract.id)
async def test_a_job_is_polled_until_its_result_is_there(
    client: impasto.Client, provider: Provider, contract: Contract
) -> None:
    provider.clear()
    provider.pending = 2
    result = await client.run(contract.model, **minimal_request(contract))
    assert result.artifacts[0].media_type.startswith(f"{contract.makes}/")
    post, *polls = provider.requests
    check(contract, minimal_request(contract), post)
    assert len(polls) == 3
    for poll in polls:
        check_poll(contract, poll)
    provider.clear()
    await client.resume(contract.model, JOB)
    [poll] = provider.requests
    check_poll(contract, poll)


@pytest.mark.parametrize("contract", STABILITY, ids=lambda contract: contract.id)
async def test_the_vendors_own_host_is_asked_no_faster_than_it_allows(contract: Contract) -> None:
    async with impasto.Client(api_key=KEY, poll_interval=WIRE["poll_seconds"]) as client:
        account = await client.account(contract.model)
        assert account.base_url == WIRE["base"]
        assert account.rate_limit == impasto.RateLimit(WIRE["requests"], WIRE["seconds"])
        with pytest.raises(impasto.ConfigError, match="poll_interval"):
            await client.with_options(poll_interval=WIRE["poll_seconds"] - 0.1).account(contract.model)


@pytest.mark.parametrize("path", sorted(ACCOUNT))
async def test_the_account_is_asked_for(client: impasto.Client, provider: Provider, path: str) -> None:
    provider.clear()
    stability = client.stability
    organization = {} if path.endswith("account") else {"organization": "org-1"}
    call = {"balance": stability.balance, "account": stability.account, "list": stability.engines}
    await call[path.rpartition("/")[2]](**organization)  # type: ignore[operator]
    [requests] = provider.requests
    assert (requests.method, requests.path, requests.body) == ("GET", path, b"")
    assert requests.header("authorization") == f"Bearer {KEY}"
    assert requests.header("organization") == organization.get("organization")


async def test_a_user_has_at_most_256_characters(client: impasto.Client, provider: Provider) -> None:
    call: dict[str, Any] = {
        "model": "stability/stable-image-core",
        "prompt": "a lighthouse",
        "api_key": KEY,
        "api_base": provider.url,
    }
    provider.clear()
    await impasto.aimage_generation(**call, user="u" * 256)
    [post] = provider.requests
    assert post.header("stability-client-user-id") == "u" * 256
    with pytest.raises(impasto.InvalidRequest, match="user"):
        await impasto.aimage_generation(**call, user="u" * 257)


@pytest.mark.parametrize("contract", BEDROCK, ids=lambda contract: contract.id)
async def test_a_guardrail_goes_out_as_headers(client: impasto.Client, provider: Provider, contract: Contract) -> None:
    headers = BEDROCK_WIRE["headers"]
    for guardrail in BEDROCK_WIRE["guardrail"]["valid"]:
        provider.clear()
        await client.run(contract.model, **minimal_request(contract), **guardrail)
        more = {headers[name]: value for name, value in guardrail.items()}
        check(contract, minimal_request(contract), provider.requests[0], headers=more)
    for guardrail in BEDROCK_WIRE["guardrail"]["invalid"]:
        provider.clear()
        with pytest.raises(impasto.InvalidRequest, match="|".join(guardrail)):
            await client.run(contract.model, **minimal_request(contract), **guardrail)
        assert not provider.requests


@pytest.mark.parametrize("contract", BEDROCK, ids=lambda contract: contract.id)
async def test_a_model_is_called_in_its_regions(client: impasto.Client, provider: Provider, contract: Contract) -> None:
    for region in ("us-east-1", "us-east-2", "us-west-2", "eu-central-1"):
        provider.clear()
        call = client.with_options(aws_region=region).run(contract.model, **minimal_request(contract))
        if region in contract.regions:
            await call
            [post] = provider.requests
            assert f"/{region}/bedrock/aws4_request" in (post.header("authorization") or "")
        else:
            with pytest.raises(impasto.ConfigError, match=region):
                await call
            assert not provider.requests


@pytest.mark.parametrize(("address", "path"), sorted(BEDROCK_WIRE["addresses"].items()))
async def test_an_address_is_one_segment_of_the_path(
    client: impasto.Client, provider: Provider, address: str, path: str
) -> None:
    provider.clear()
    [contract] = [each for each in BEDROCK if each.id == "inpaint"]
    base_model = contract.model if address.startswith("arn:") else None
    await client.run(f"bedrock/{address}", base_model=base_model, **minimal_request(contract))
    [post] = provider.requests
    assert (post.method, post.path) == ("POST", path)


async def test_a_session_token_is_sent_and_signed(client: impasto.Client, provider: Provider) -> None:
    [contract] = [each for each in BEDROCK if each.id == "core-1.1"]
    with_token = client.with_options(
        aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, aws_session_token="token/1+=="
    )
    await with_token.run(contract.model, **minimal_request(contract))
    [post] = provider.requests
    check(contract, minimal_request(contract), post)
    assert post.header("x-amz-security-token") == "token/1+=="
    assert ";x-amz-security-token," in (post.header("authorization") or "")


async def test_a_bedrock_key_is_sent_as_it_is(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_BEARER_TOKEN_BEDROCK", "bedrock-key-1")
    [contract] = [each for each in BEDROCK if each.id == "core-1.1"]
    provider.clear()
    async with impasto.Client(aws_region=contract.regions[0], bedrock_endpoint=provider.url) as client:
        await client.run(contract.model, **minimal_request(contract))
    [post] = provider.requests
    assert post.header("authorization") == "Bearer bedrock-key-1"
    assert not [name for name, _ in post.headers if name.startswith("x-amz-")]
