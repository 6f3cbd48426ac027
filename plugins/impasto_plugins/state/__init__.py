"""Stores of state that processes share: calls, budgets, files and batches.

sqlite    the default: a database in a folder, for the processes of one machine
periods   the arithmetic of budgets, for every store
"""
