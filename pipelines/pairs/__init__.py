"""Pairs of before and after: find them, check them."""
