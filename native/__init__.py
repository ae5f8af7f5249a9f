"""Bytes, integers, doubles: the compiled layer. Imports nothing of ours."""
