"""CLIP: load a frozen CLIP, train HiCroPL prompts for it (arXiv 2507.14976), or pretrain a small CLIP."""
