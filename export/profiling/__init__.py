"""Cost of a model: layers, MACs, memory traffic, measured layer times, and latency estimates per board."""
