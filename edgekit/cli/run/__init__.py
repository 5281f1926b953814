"""The parts of `edgekit run`: its groups of options, its sinks, its signals and its summary."""
