"""Options of `edgekit run` by subject, and its sinks and signals."""
