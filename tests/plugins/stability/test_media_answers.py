"""What comes of answers with sounds and 3D models: taken, kept, and told with what it cost."""

from __future__ import annotations

from base64 import b64encode

import pytest

import impasto
from impasto import ChargeUnknown, InvalidRequest, ProviderFault, UnusableResult
from tests.images import png
from tests.media import glb, mp3, wav
from tests.recorder import JOB, Answer, Recorder, in_json

TEXT = "stability/stable-audio-2.5/text-to-audio"
THREE = "stability/stable-audio-3/text-to-audio"
FAST = "stability/stable-fast-3d"


@pytest.mark.parametrize(("data", "kind"), [(wav(3), "audio/wav"), (mp3(3), "audio/mpeg")])
async def test_audio_comes_as_bytes_and_in_json(
    client: impasto.Client, recorder: Recorder, data: bytes, kind: str
) -> None:
    headers = {"content-type": kind, "seed": "5", "finish-reason": "SUCCESS"}
    payload = {"audio": b64encode(data).decode(), "seed": 5, "finish_reason": "SUCCESS"}
    in_words = in_json(payload)
    in_words.headers["content-type"] = f"application/json; type={kind}"
    for answer in (Answer(headers=headers, body=data), in_words):
        recorder.answer = lambda _, answer=answer: answer
        (artifact,) = (await client.run(TEXT, prompt="rain")).artifacts
        assert (artifact.data, artifact.media_type, artifact.seed, artifact.finish_reason) == (data, kind, 5, "SUCCESS")


async def test_a_model_comes_without_a_seed(client: impasto.Client, recorder: Recorder, tmp_path) -> None:
    result = await client.run(FAST, image=png(96, 96))
    (artifact,) = result.artifacts
    assert (artifact.data, artifact.seed, artifact.finish_reason) == (glb(), None, None)
    assert artifact.save(tmp_path / "a.glb").read_bytes() == glb()
    assert result.cost is not None
    assert result.cost.credits == 10
    assert recorder.requests[0].header("accept") is None


@pytest.mark.parametrize(
    ("model", "answer", "message"),
    [
        (TEXT, ("audio/wav", wav(3)[:-1]), "an incomplete audio file"),
        (TEXT, ("audio/mpeg", mp3(3)[:-10]), "an incomplete audio file"),
        (TEXT, ("audio/mpeg", png(8, 8)), "has no valid audio file"),
        (TEXT, ("application/json", b'{"image": "AAAA"}'), "neither audio file nor job id"),
        (FAST, ("model/gltf-binary", glb()[:-1]), "an incomplete 3D model"),
        (FAST, ("model/gltf-binary", wav(3)), "has no valid 3D model"),
        (FAST, ("application/json", b"{}"), "neither 3D model nor job id"),
    ],
)
async def test_an_unusable_answer_that_was_charged_is_in_the_error(
    client: impasto.Client, recorder: Recorder, model: str, answer: tuple[str, bytes], message: str
) -> None:
    kind, body = answer
    recorder.answer = lambda _: Answer(headers={"content-type": kind}, body=body)
    arguments = {"prompt": "rain"} if model == TEXT else {"image": png(96, 96)}
    with pytest.raises(UnusableResult, match=message) as caught:
        await client.invoke(model, arguments)
    assert (caught.value.raw, caught.value.billed) == (body, "yes")
    assert len(recorder.posts) == 1


@pytest.mark.parametrize(("model", "kind"), [(TEXT, "image/png"), (FAST, "audio/wav"), ("stability/sd3", "audio/wav")])
async def test_an_answer_of_another_kind_is_not_the_providers_own(
    client: impasto.Client, recorder: Recorder, model: str, kind: str
) -> None:
    recorder.answer = lambda _: Answer(headers={"content-type": kind}, body=b"x")
    arguments = {"image": png(96, 96)} if model == FAST else {"prompt": "rain"}
    with pytest.raises(ChargeUnknown):
        await client.invoke(model, arguments)
    assert len(recorder.posts) == 1


async def test_an_audio_job_is_polled_and_can_be_resumed(client: impasto.Client, recorder: Recorder) -> None:
    recorder.jobs, recorder.pending = {"/v2beta/audio/stable-audio/text-to-audio"}, 2
    result = await client.run(THREE, prompt="rain", duration=380)
    assert result.artifacts[0].data == wav(10)
    resumed = await client.resume(THREE, JOB)
    assert resumed.artifacts[0].data == wav(10)
    polls = recorder.requests[1:]
    assert {(each.method, each.path, each.header("accept")) for each in polls} == {
        ("GET", f"/v2beta/audio/results/{JOB}", "audio/*")
    }
    assert len(polls) == 4
    with pytest.raises(InvalidRequest, match="answers at once"):
        await client.resume(TEXT, JOB)


async def test_a_refusal_is_reported_and_costs_nothing(client: impasto.Client, recorder: Recorder) -> None:
    payload = {"id": "1", "name": "copyrighted_content", "errors": ["audio: is someone's"]}
    recorder.answer = lambda _: in_json(payload, status=422)
    with pytest.raises(impasto.Unprocessable, match="copyrighted_content") as caught:
        await client.run("stability/stable-audio-2.5/audio-to-audio", prompt="rain", audio=wav(7))
    assert caught.value.billed == "no"


async def test_the_price_of_a_formula_counts_towards_the_spend_limit(recorder: Recorder) -> None:
    async with impasto.Client(api_key="k", api_base=recorder.url, spend_limit_usd=0.21) as client:
        two = "stability/stable-audio-2/text-to-audio"
        with pytest.raises(impasto.SpendLimitExceeded):
            await client.run(two, prompt="rain", steps=100)
        assert (await client.run(two, prompt="rain")).cost == impasto.Cost(usd=0.2, credits=20, as_of="2026-09-22")
    assert len(recorder.posts) == 1


async def test_several_audio_files_have_consecutive_seeds(client: impasto.Client, recorder: Recorder) -> None:
    result = await client.run(TEXT, prompt="rain", seed=5, n=3)
    assert len(result.artifacts) == 3
    assert sorted(each.fields["seed"] for each in recorder.posts) == ["5", "6", "7"]
    assert result.cost is not None
    assert result.cost.credits == 60


async def test_the_providers_own_failure_is_retried(client: impasto.Client, recorder: Recorder) -> None:
    recorder.answer = lambda _: in_json({"id": "1", "name": "internal_error", "errors": []}, status=500)
    with pytest.raises(ProviderFault):
        await client.run(TEXT, prompt="rain")
    assert len(recorder.posts) == 3
