"""Benchmark reports: the document, its validation, statistics, forms (terminal, HTML, Markdown, CSV) and comparison."""
