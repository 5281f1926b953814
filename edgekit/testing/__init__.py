"""Conformance tests for extensions of edgekit: `edgekit.testing.engine`."""
