"""Configuration: TOML files to a checked plan. Everything is validated before anything starts."""

from fabric.config.load import load_topology
from fabric.config.plan import Plan, make_plan
from fabric.config.topology import Topology

__all__ = ["Plan", "Topology", "load_topology", "make_plan"]
