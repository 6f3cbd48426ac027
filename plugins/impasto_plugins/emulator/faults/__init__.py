"""Faults that the emulator injects: the kinds, and the rules that select requests."""
