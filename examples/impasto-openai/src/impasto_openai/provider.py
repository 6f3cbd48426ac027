"""The provider: its address and its key."""

from impasto import Provider

provider = Provider(
    name="openai",
    base_url="https://api.openai.com",
    base_url_variable="OPENAI_API_BASE",
    key_variable="OPENAI_API_KEY",
)
