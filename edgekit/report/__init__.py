"""Benchmark reports: document, validation, statistics, output as text, HTML, Markdown and CSV, and comparison."""
