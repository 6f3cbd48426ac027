"""The demonstration: impasto try, its steps and its page."""
