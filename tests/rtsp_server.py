"""An RTSP server to which others may publish: `python3 rtsp_server.py PORT FILE`, with Debian's Python and GStreamer.

It writes the H.264 video of `rtsp://127.0.0.1:PORT/door` to FILE, which begins anew with each publisher.
"""

import sys

import gi

gi.require_version("Gst", "1.0")
gi.require_version("GstRtspServer", "1.0")
from gi.repository import GLib, Gst, GstRtspServer  # noqa: E402 - after the choice of versions

Gst.init(None)
port, path = sys.argv[1:]
factory = GstRtspServer.RTSPMediaFactory()
factory.set_transport_mode(GstRtspServer.RTSPTransportMode.RECORD)
factory.set_launch(
    "( rtph264depay name=depay0 ! h264parse ! video/x-h264,stream-format=byte-stream,alignment=au "
    f"! filesink location={path} buffer-mode=unbuffered sync=false )"
)
server = GstRtspServer.RTSPServer()
server.set_address("127.0.0.1")
server.set_service(port)
server.get_mount_points().add_factory("/door", factory)
server.attach(None)
print("ready", flush=True)
GLib.MainLoop().run()
