"""Google's Imagen models for impasto, with an API key or on Vertex AI."""
