"""Conformance tests for extensions of edgekit: `python -m edgekit.testing engine`, or `edgekit.testing.engine`."""
