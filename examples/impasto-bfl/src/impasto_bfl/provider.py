"""The provider: its address, its key, and the hosts to which its answers lead."""

from impasto import Provider

provider = Provider(
    name="bfl",
    base_url="https://api.bfl.ai",
    base_url_variable="BFL_API_BASE",
    key_variable="BFL_API_KEY",
    key_header="x-key",
    key_prefix="",
    hosts=("*.bfl.ai",),
    poll_interval=0.5,
)
