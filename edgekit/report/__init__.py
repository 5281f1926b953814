"""Benchmark reports: document, validation, statistics, output as text and as an HTML page, and comparison."""
