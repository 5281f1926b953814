"""Parts of the commands `export`, `verify`, `profile` and `inspect`: option groups, their checks, and output."""
