"""Nodes and what runs them: duty cycle, cycle journal, checkpoints, exact resume."""
