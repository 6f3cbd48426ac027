"""The ledger of a batch: rows, the log file, the workspace folder, recovery after a stop."""
