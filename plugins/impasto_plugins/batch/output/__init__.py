"""Output of a batch: results, status, report, exports, S3."""
