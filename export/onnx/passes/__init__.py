"""Graph rewrites: one small named function a file, `(model) -> number of places changed`, on the exporter's graph."""
