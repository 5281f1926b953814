"""Publishing of a model: its files, its card, its figures in the documentation; see `__main__.py` for the command."""
