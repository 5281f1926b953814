"""The commands, most of them in a module of their name as `command`; commands do not import each other."""
