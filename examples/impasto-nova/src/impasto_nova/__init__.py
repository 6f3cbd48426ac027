"""Amazon Nova Canvas on Bedrock for impasto."""
