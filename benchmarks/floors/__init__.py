"""The least that the same work can cost: what each figure of ours is divided by."""
