"""CLIP, frozen, and prompts learned for it: HiCroPL (arXiv 2507.14976) on open_clip's towers."""
