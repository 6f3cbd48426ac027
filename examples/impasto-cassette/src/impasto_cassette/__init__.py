"""Recording and replay of calls for impasto."""
