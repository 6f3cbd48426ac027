"""The first-party plugins of impasto. Plugins of other people are distributions and packages of their own."""
