"""Labelling of collected crops in a browser: `LabelPage` serves the page, `LabelStore` moves the files."""

from __future__ import annotations

from edgekit.device.label.page import LabelPage
from edgekit.device.label.store import LabelStore, exclusive_store

__all__ = ["LabelPage", "LabelStore", "exclusive_store"]
