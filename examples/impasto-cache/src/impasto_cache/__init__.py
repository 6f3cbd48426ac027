"""Pictures that were paid for, kept."""
