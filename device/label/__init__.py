"""Labelling of collected crops in a browser: `label_page` serves the page, `LabelStore` moves the files."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.device.label.app import make_app
from edgekit.device.label.store import LabelStore, exclusive_store
from edgekit.device.sinks.web.access import Access
from edgekit.device.sinks.web.server import WebServer

__all__ = ["LabelStore", "exclusive_store", "label_page"]


def label_page(store: LabelStore, address: str, token: str | None, notify: Callable[[str], None]) -> WebServer:
    """Return the server of the page for labelling, to be entered with `with`; see `WebServer` for arguments and errors.

    with label_page(LabelStore(Path("collected")), "127.0.0.1:8080", token=None, notify=print) as page:
        print(page.url)
        input("press Enter to end")
    """
    return WebServer(address, token, make_app(Access(token), store), notify)
