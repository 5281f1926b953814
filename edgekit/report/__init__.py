"""Benchmark documents: their statistics, their schema, what is shown of them, and how two are compared.

A document is plain JSON (`schema.py` says which); everything else here is a function of one.
"""
