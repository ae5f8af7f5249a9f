"""Sockets: publisher, receiver, log server. Imports no config, no runtime."""
