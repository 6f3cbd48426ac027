"""Length and completeness of audio files and 3D models."""
