"""One module per command, which defines it as `command`; commands do not import each other."""
