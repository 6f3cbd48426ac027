"""Stability AI: one module per operation, with its Bedrock variant beside it."""
