"""Labelling of collected crops in a browser: `label_page` serves the page, `LabelStore` moves the files."""
