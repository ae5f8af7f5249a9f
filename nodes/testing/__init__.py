"""Stand-ins for venues: for tests, and for trying a config without a venue."""
