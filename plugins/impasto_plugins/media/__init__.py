"""Length and completeness of sounds and 3D models."""
