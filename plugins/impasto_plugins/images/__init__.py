"""Looks at pictures, which the core never does: limits of uploads, completeness of answers, masks."""
