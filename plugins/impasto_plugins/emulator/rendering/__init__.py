"""Rendering of answers: images, audio and 3D models."""
