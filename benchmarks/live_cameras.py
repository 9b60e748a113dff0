"""Two RTSP cameras on loopback, /gate and /hall, by GStreamer's RTSP server: a film as if it happened now.

Run by the Python of the system, which Debian's packages belong to (no other package is needed):

    apt install gir1.2-gst-rtsp-server-1.0 gir1.2-gst-plugins-base-1.0 gstreamer1.0-plugins-good \\
                gstreamer1.0-plugins-ugly
    /usr/bin/python3 benchmarks/live_cameras.py FOLDER --port 8554 --start UNIX_SECONDS

Frame n is sent at start + n / fps, whenever the server was started and whoever watches; before and after the film its
first and last frame.
"""

import argparse
import importlib
import json
import time
from pathlib import Path

LAUNCH = (
    "( appsrc name=source is-live=true do-timestamp=true format=time caps=image/jpeg,framerate={fps}/1 ! jpegdec "
    "! videoconvert ! video/x-raw,format=I420 ! x264enc tune=zerolatency speed-preset=veryfast bitrate=3000 "
    "key-int-max={fps} ! video/x-h264,profile=main ! rtph264pay name=pay0 pt=96 config-interval=1 )"
)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--port", type=int, default=8554)
    parser.add_argument("--start", type=float, default=time.time())
    options = parser.parse_args()

    gi = importlib.import_module("gi")  # no package of this project
    for name in ("Gst", "GstApp", "GstRtspServer"):
        gi.require_version(name, "1.0")
    loaded = [importlib.import_module(f"gi.repository.{name}") for name in ("GLib", "Gst", "GstRtspServer", "GstApp")]
    GLib, Gst, GstRtspServer = loaded[:3]  # GstApp gives appsrc its methods
    Gst.init(None)
    server = GstRtspServer.RTSPServer(address="127.0.0.1", service=str(options.port))
    for index in sorted(options.folder.glob("*.index")):
        camera = Film(index, options.start, GLib, Gst)
        factory = GstRtspServer.RTSPMediaFactory(launch=LAUNCH.format(fps=camera.fps), shared=True)
        factory.connect("media-configure", camera.configure)
        server.get_mount_points().add_factory(f"/{index.stem}", factory)
    server.attach(None)
    print(f"rtsp://127.0.0.1:{options.port}", flush=True)
    GLib.MainLoop().run()


class Film:
    """One film, sent to a media of the server while it is watched."""

    def __init__(self, index, start_s, glib, gst):
        known = json.loads(index.read_text())
        self.fps, self.offsets, self.start_s = known["fps"], known["offsets"], start_s
        self.data = index.with_suffix(".jpgs").read_bytes()
        self.glib, self.gst, self.sources = glib, gst, []

    def configure(self, factory, media):
        source = media.get_element().get_by_name_recurse_up("source")
        self.sources.append(source)
        media.connect("unprepared", lambda _: self.sources.remove(source))
        if len(self.sources) == 1:
            self.next()

    def next(self):
        """Send the frame of this moment, and come back at the next one."""
        if not self.sources:
            return False
        number = int((time.time() - self.start_s) * self.fps)
        place = min(max(number, 0), len(self.offsets) - 2)
        frame = self.data[self.offsets[place] : self.offsets[place + 1]]
        for source in self.sources:
            source.push_buffer(self.gst.Buffer.new_wrapped(frame))
        due_s = self.start_s + (number + 1) / self.fps
        self.glib.timeout_add(max(1, round(1000 * (due_s - time.time())) + 1), self.next)
        return False


if __name__ == "__main__":
    main()
