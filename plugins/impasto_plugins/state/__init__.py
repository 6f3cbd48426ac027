"""Stores of state that processes share: calls, budgets, files and batches.

sqlite    the default: a database in a folder, for the processes of one machine
postgres  a schema of a PostgreSQL database, for the processes of several machines
periods   the arithmetic of budgets, for every store
clock     a clock that goes on as before if somebody sets that of the machine
results   folders that have results, for every store
"""
