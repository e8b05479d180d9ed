"""Pairs on the command line: what can be used, and how they look."""
