"""Black Forest Labs' FLUX models for impasto."""
