"""Parts of the commands `export`, `verify`, `profile` and `inspect`: option groups, rules and output."""
