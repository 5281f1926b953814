"""Output of results as text, tables and report files."""
