"""Distillation: train a small net on the cached outputs of teachers, and replace its labels by described ones."""
