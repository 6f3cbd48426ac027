import aiohttp
import pytest

from tests.recorder import ReceivedRequest, Recorder


async def test_it_keeps_a_request_as_it_came(recorder: Recorder) -> None:
    form = aiohttp.FormData(default_to_multipart=True)
    form.add_field("prompt", "a lighthouse\r\n--x")
    form.add_field("image", b"\x00\r\n\xff", filename="image.png", content_type="image/png")
    async with aiohttp.ClientSession() as session, session.post(f"{recorder.url}/a?b=%20", data=form) as response:
        assert response.status == 200
    [request] = recorder.requests
    assert (request.method, request.path) == ("POST", "/a?b=%20")
    assert request.fields == {"prompt": "a lighthouse\r\n--x"}
    assert request.files["image"].data == b"\x00\r\n\xff"
    assert request.files["image"].content_type == "image/png"


@pytest.mark.parametrize(
    "body",
    [
        b'junk\r\n--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n',
        b'--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n',
        b'--b\r\ncontent-disposition: form-data; name="a"\r\n1\r\n--b--\r\n',
        b"--b\r\ncontent-disposition: form-data; name=a\r\n\r\n1\r\n--b--\r\n",
    ],
    ids=["preamble", "not closed", "no blank line", "name without quotes"],
)
def test_it_refuses_multipart_that_a_strict_reader_would_refuse(body: bytes) -> None:
    request = ReceivedRequest(
        method="POST", path="/", headers=(("Content-Type", "multipart/form-data; boundary=b"),), body=body
    )
    with pytest.raises(AssertionError):
        _ = request.parts
