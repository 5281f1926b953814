"""One table per model: all formats of its exported file, measured, with the one to use."""
