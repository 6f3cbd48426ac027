"""Two ways to Imagen: the Gemini API with a key, and Vertex AI with a project, a location and OAuth tokens."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path

import attrs

from impasto import Account, ConfigError, NotSent, Provider, hookimpl
from impasto.dialects import Token, TokenCache

TOKEN_URL = "https://oauth2.googleapis.com/token"  # noqa: S105 - an address
_CREDENTIALS = "~/.config/gcloud/application_default_credentials.json"
_ADVICE = "run `gcloud auth application-default login`, or set credentials or api_key (an access token)"
_NAME = re.compile(r"[a-z0-9][a-z0-9.:-]{0,100}")

gemini = Provider(
    name="gemini",
    base_url="https://generativelanguage.googleapis.com",
    base_url_variable="GEMINI_API_BASE",
    key_variable="GEMINI_API_KEY",
    key_header="x-goog-api-key",
    key_prefix="",
)


@attrs.frozen(kw_only=True, eq=False)
class VertexAI(Provider):
    """Vertex AI: the location chooses the host, and tokens come from the credentials that gcloud wrote."""

    def account(self, settings: Mapping[str, object], *, emulator_url: str | None = None) -> Account:
        """Return the account. Raises ConfigError without a project."""
        project = settings.get("project") or os.environ.get("GOOGLE_CLOUD_PROJECT")
        location = settings.get("location") or os.environ.get("GOOGLE_CLOUD_LOCATION") or "us-central1"
        credentials = settings.get("credentials") or os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") or _CREDENTIALS
        found = {**settings, "project": project, "location": location, "credentials": credentials}
        if emulator_url is not None:
            found |= {"project": project or "emulator", "api_key": settings.get("api_key") or "emulator"}
        for name in ("project", "location"):
            if not isinstance(found[name], str) or not _NAME.fullmatch(str(found[name])):
                raise ConfigError(
                    f"vertex_ai: set {name} or GOOGLE_CLOUD_{name.upper()}, such as my-project or us-east4"
                )
        if settings.get("api_base") is None and emulator_url is None and not os.environ.get("VERTEX_AI_API_BASE"):
            region = "" if location == "global" else f"{location}-"
            found["api_base"] = f"https://{region}aiplatform.googleapis.com"
        return super().account(found, emulator_url=emulator_url)

    @hookimpl
    async def authorize(self, account: Account, refused: bool) -> Mapping[str, str]:
        """Return a token of the credentials, unless the caller gave one."""
        return {} if account.headers else {"authorization": f"Bearer {await _tokens.get(account, refused=refused)}"}


async def _fetch(account: Account) -> Token:
    """Exchange the refresh token of the credentials for an access token (RFC 6749, section 6)."""
    import aiohttp  # only when a token is needed

    path = Path(account.settings["credentials"])
    try:
        stored = json.loads(await asyncio.to_thread(lambda: path.expanduser().read_bytes()))
        form = {name: str(stored[name]) for name in ("client_id", "client_secret", "refresh_token")}
        url = str(stored.get("token_uri", TOKEN_URL))
    except (OSError, RuntimeError, ValueError, LookupError, TypeError, AttributeError):
        raise ConfigError(f"vertex_ai: no credentials of a user in {path.name}; {_ADVICE}") from None
    try:
        async with (
            aiohttp.ClientSession(trust_env=True) as session,
            session.post(url, data={**form, "grant_type": "refresh_token"}, allow_redirects=False) as response,
        ):
            answer = await response.json() if response.status == 200 else None
    except (aiohttp.ClientError, ValueError) as error:
        raise NotSent(f"no token from Google ({type(error).__name__}); nothing was sent") from None
    match answer:
        case {"access_token": str(value), "expires_in": int(seconds)}:
            return Token(value, seconds)
    raise ConfigError(f"vertex_ai: Google refused the credentials (HTTP {response.status}); {_ADVICE}")


_tokens = TokenCache(_fetch)
vertex_ai = VertexAI(
    name="vertex_ai",
    base_url="https://us-central1-aiplatform.googleapis.com",
    base_url_variable="VERTEX_AI_API_BASE",
    settings=("project", "location", "credentials"),
)
