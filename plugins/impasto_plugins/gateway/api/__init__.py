"""The image, audio and 3D endpoints: requests, responses, jobs, files, models."""
