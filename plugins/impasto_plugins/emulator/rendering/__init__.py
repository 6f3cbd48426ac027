"""Rendered answers: images, audio and 3D models."""
