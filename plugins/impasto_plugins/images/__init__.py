"""Image checks outside the core: limits of uploads, completeness of answers, masks."""
