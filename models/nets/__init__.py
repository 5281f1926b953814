"""Nets: EdgeCNN and its variants, Mini-Xception, external nets, and the registry that creates nets by name."""
