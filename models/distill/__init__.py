"""Distillation: a small net learns from the outputs of teachers (cached), with losses and relabelling by text."""
