"""``fabric fault``: faults put into a running fabric on purpose, and the proof afterwards that nothing was lost in silence."""
