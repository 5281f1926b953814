"""The tutorials export nets: a graph that another test has made is not made again."""

from __future__ import annotations

from tests.graph_cache import graph_cache as graph_cache
