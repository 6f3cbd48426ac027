"""Easel's models for impasto."""
