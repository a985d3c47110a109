"""A small RTSP server for tests: it sends the frames of a video in MPEG-4 over the connection itself, and may hang up in between."""

from __future__ import annotations

import socketserver
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import cv2
import numpy as np

_CLOCK = 90_000  # RTP's ticks per second for video
_FPS = 25
_MOST_PAYLOAD = 1400  # bytes of a frame in one RTP packet


def encoded_frames(images: Sequence[np.ndarray]) -> list[bytes]:
    """Return pictures as frames of MPEG-4 part 2, the first with the header that a decoder needs: those of an AVI file, whose chunks are plain."""
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.avi")
        height, width = images[0].shape[:2]
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), _FPS, (width, height))
        for image in images:
            writer.write(image)
        writer.release()
        data = path.read_bytes()
    frames, place = [], data.index(b"movi") + 4
    while data[place : place + 4] == b"00dc":
        size = int.from_bytes(data[place + 4 : place + 8], "little")
        frames.append(data[place + 8 : place + 8 + size])
        place += 8 + size + size % 2
    return frames


class _Session(socketserver.StreamRequestHandler):
    """One client: answers its requests, and sends frames after PLAY."""

    server: _Server

    def handle(self) -> None:
        while True:
            lines = []
            while (line := self.rfile.readline().strip()) or not lines:
                if not line:
                    return
                lines.append(line.decode())
            method, address = lines[0].split()[:2]
            number = next(line.split(":")[1].strip() for line in lines if line.lower().startswith("cseq"))
            self._answer(method, address, number)
            if method == "PLAY":
                self._play()
                return

    def _answer(self, method: str, address: str, number: str) -> None:
        body = ""
        headers = [f"CSeq: {number}"]
        if method == "OPTIONS":
            headers.append("Public: OPTIONS, DESCRIBE, SETUP, PLAY, TEARDOWN")
        elif method == "DESCRIBE":
            config = self.server.frames[0][: self.server.frames[0].index(b"\0\0\1\xb6")].hex()
            media = f"m=video 0 RTP/AVP 96\r\na=rtpmap:96 MP4V-ES/{_CLOCK}\r\na=fmtp:96 profile-level-id=1; config={config}\r\na=control:track1\r\n"
            body = f"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=test\r\nc=IN IP4 0.0.0.0\r\nt=0 0\r\n{media}"
            headers += ["Content-Type: application/sdp", f"Content-Base: {address}/", f"Content-Length: {len(body)}"]
        elif method == "SETUP":
            headers += ["Transport: RTP/AVP/TCP;unicast;interleaved=0-1", "Session: 1"]
        elif method == "PLAY":
            headers += ["Session: 1", "Range: npt=0.000-"]
        self.wfile.write(("\r\n".join(["RTSP/1.0 200 OK", *headers]) + "\r\n\r\n" + body).encode())

    def _play(self) -> None:
        """Send the frames of this connection, one packet of RTP for each piece of each, and hang up."""
        number = 0
        for place, frame in enumerate(self.server.next_frames()):
            pieces = [frame[start : start + _MOST_PAYLOAD] for start in range(0, len(frame), _MOST_PAYLOAD)]
            for piece in pieces:
                last = 0x80 if piece is pieces[-1] else 0
                packet = struct.pack(">BBHII", 0x80, last | 96, number, place * _CLOCK // _FPS, 1) + piece
                self.wfile.write(b"$\0" + struct.pack(">H", len(packet)) + packet)
                number += 1


class _Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    frames: Sequence[bytes]
    visits: Iterator[int]

    def next_frames(self) -> Sequence[bytes]:
        """Return the frames that this connection gets: those from the first, as many as the list of visits says, none after its end."""
        return self.frames[: next(self.visits, 0)]


@contextmanager
def rtsp_server(images: Sequence[np.ndarray], visits: Sequence[int]) -> Iterator[str]:
    """Serve pictures as an RTSP stream, and give its address. visits: number of frames that each connection in turn gets before it is cut off."""
    with _Server(("127.0.0.1", 0), _Session) as server:
        server.frames, server.visits = encoded_frames(images), iter(visits)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"rtsp://127.0.0.1:{server.server_address[1]}/live"
        finally:
            server.shutdown()
