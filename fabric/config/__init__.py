"""Configuration: TOML files to a checked plan. Everything is validated before anything starts.

Clients need ``load`` and ``topology``; ``plan`` loads nodes' code.
"""
