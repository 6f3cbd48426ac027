"""For tests of code that uses impasto, and of plugins."""
