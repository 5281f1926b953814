"""Web page of a run, with video, state and metrics: the options."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from edgekit.device.sink import Sink, SinkOptions
from edgekit.options import option

if TYPE_CHECKING:
    from edgekit.device.sinks.context import RunContext


_MAX_FPS = 10.0


@dataclass(frozen=True, kw_only=True)
class WebOptions(SinkOptions):
    """Options of the web page."""

    title = "Web page"

    web: str | None = option(
        "--web",
        "Serve a web page with the frames at HOST:PORT; without a value: 127.0.0.1:8080.",
        metavar="[ADDR]",
        bare="127.0.0.1:8080",
        main=True,
    )
    web_token_file: Path | None = option(
        "--web-token-file",
        "File with the access token of the page. EDGEKIT_WEB_TOKEN can contain the token instead. Viewers on other "
        "machines need the token.",
        metavar="FILE",
        needs="--web",
    )

    def open(self, run: RunContext) -> Sink | None:
        """Return the sink.

        Raises:
            InputError: The address or the token cannot be used, or other machines reach the address without a token.
            TemporaryError: The name of the address cannot be resolved, or the address is in use.
        """
        if self.web is None:
            return None
        from edgekit.device.sinks.web.server import WebSink

        web = WebSink(
            self.web,
            self._token(run.notify),
            run.monitor,
            max_fps=_MAX_FPS,
            blur=run.blur(),
            recognise=None if run.recogniser is None else run.recogniser(),
            # The sinks of teaching and of clips are opened before this one.
            teaching=run.links.teaching,
            clips=None if run.links.clips is None else run.links.clips.folder,
        )
        run.shutdown.add(web.end)
        run.links.outlets.append(run.monitor.post)  # the page shows the latest events
        run.say(f"web page: {web.url}" if run.links.teaching is None else f"teach at {web.url}teach")
        return web

    def _token(self, notify: Callable[[str], None]) -> str | None:
        from edgekit.device.sink import read_secret

        return read_secret(self.web_token_file, "EDGEKIT_WEB_TOKEN", "web token", notify)
