"""Distillation: train a small net on cached outputs of teachers; replace its labels by labels described in text."""
