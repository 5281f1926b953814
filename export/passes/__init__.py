"""Graph rewrites, one function per module; each returns the number of changes that it made."""
