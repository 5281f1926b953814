"""Quantisation to int8 or float16, with a gate on accuracy."""
