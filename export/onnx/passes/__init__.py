"""Graph rewrites, one function per module; each returns the number of places it changed."""
