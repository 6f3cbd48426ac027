"""Amazon Bedrock for every plugin with models on it: the provider, with AWS credentials, and AWS's refusals."""

from .provider import BedrockProvider, bedrock
from .refusals import code_of, refusal

__all__ = ["BedrockProvider", "bedrock", "code_of", "refusal"]
