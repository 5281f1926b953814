"""Cost of a model: layers, MACs, memory traffic, and latency estimates per board."""
