"""New engine (temporary place)."""
