"""Pairs in: find them, check them, show them."""
