"""``fabric bench``: latency and throughput of this fabric's client beside other libraries. See docs/bench.md."""
