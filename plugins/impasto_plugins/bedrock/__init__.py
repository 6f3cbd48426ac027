"""Amazon Bedrock for every plugin with models on it: the provider, with AWS credentials, and AWS's refusals."""

from .provider import BedrockProvider, bedrock
from .refusals import refusal

__all__ = ["BedrockProvider", "bedrock", "refusal"]
