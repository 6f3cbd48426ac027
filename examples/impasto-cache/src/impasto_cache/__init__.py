"""A cache of paid answers for impasto."""
