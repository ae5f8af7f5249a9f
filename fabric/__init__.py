"""Market data over ZeroMQ that loses nothing in silence. See README.md; errors are in fabric.errors."""
