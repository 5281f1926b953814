"""Server of the page for labelling."""

from __future__ import annotations

from collections.abc import Callable

from edgekit.device.label.app import make_app
from edgekit.device.label.store import LabelStore
from edgekit.device.sinks.web.access import Access
from edgekit.device.sinks.web.server import WebServer


class LabelPage(WebServer):
    """Serves the page for labelling in a thread, for the duration of a `with` block.

    with LabelPage(LabelStore(Path("collected")), "127.0.0.1:8080", token=None, notify=print) as page:
        print(page.url)
        input("press Enter to end")
    """

    def __init__(self, store: LabelStore, address: str, token: str | None, notify: Callable[[str], None]) -> None:
        """Listen at `address`; see `WebServer` for arguments and errors."""
        super().__init__(address, token, make_app(Access(token), store), notify)
