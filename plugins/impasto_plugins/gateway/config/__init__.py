"""Configuration: the records, the YAML loader, the validators."""
