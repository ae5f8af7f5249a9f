"""``fabric up``: one process a node, watched, restarted, stopped in order, accounted for."""
