"""OpenAI's image models for impasto."""
