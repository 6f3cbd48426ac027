"""Storage: image files on disk or in S3, salvaged answers."""
