"""The provider: its address and its key."""

from impasto import Provider

provider = Provider(
    name="easel",
    base_url="https://api.easel.example",
    base_url_variable="EASEL_API_BASE",
    key_variable="EASEL_API_KEY",
)
