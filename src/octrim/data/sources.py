"""Opens what `--source` can name (pictures, videos, streams, a camera, or a list of them) as one sequence of frames."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from octrim.data.labelfiles import read_lines
from octrim.data.paths import exists, spellings
from octrim.data.pictures import SUFFIXES, decode_picture, is_picture, read_picture
from octrim.data.streams import Frame, Stream, without_password
from octrim.errors import InputError, shown

VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".flv", ".ts", ".asf")

_MOST_LINES, _MOST_BYTES = 10_000_000, 2**28  # lines of a list; bytes of a list, and of a picture that is fetched


@dataclass(frozen=True)
class Source:
    """An opened `--source`, to be read once.

    parts: paths of pictures, and whatever OpenCV opens: paths of videos, addresses, camera numbers. together: whether the parts are read in turns,
    one frame each, until all have ended. stride, retries, report: as `Stream` takes them. opened: the only video, opened already.
    """

    parts: tuple[str | int, ...]
    together: bool = False
    stride: int = 1
    retries: int = 0
    report: Callable[[str], None] = print
    opened: Stream | None = field(default=None, repr=False)

    @property
    def pictures(self) -> tuple[Path, ...]:
        """Paths of the pictures on this machine."""
        return tuple(Path(part) for part in self.parts if isinstance(part, str) and "://" not in part and not _is_video(part))

    @property
    def video(self) -> str | None:
        """Name of the only part where that is a video, a stream or a camera; else None."""
        return None if self.opened is None else self.opened.name

    @property
    def total(self) -> int | None:
        """Number of frames that there will be; None where that is not known."""
        if self.opened is not None:
            return self.opened.total
        return None if any(isinstance(part, int) or _is_video(part) for part in self.parts) else len(self.parts)

    @property
    def fps(self) -> float:
        """Frames per second of the only video; 30 where there is none."""
        return 30.0 if self.opened is None else self.opened.fps

    def __iter__(self) -> Iterator[Frame]:
        if self.together:
            yield from _in_turns([self._frames(part) for part in self.parts])
        else:
            for part in self.parts:
                yield from self._frames(part)

    def _frames(self, part: str | int) -> Iterator[Frame]:
        name = f"camera{part}" if isinstance(part, int) else without_password(part)
        try:
            if isinstance(part, int) or _is_video(part):
                yield from self.opened or Stream(part, self.stride, self.retries, self.report)
            elif "://" in part:
                yield Frame(name, decode_picture(_fetched(part), name))
            else:
                yield Frame(part, read_picture(part))
        except InputError as error:
            yield Frame(name, None, error=str(error))


def open_source(source: str | Path, stride: int = 1, retries: int = 0, report: Callable[[str], None] = print) -> Source:
    """Find out what `source` names, and return it. A single video, stream or camera is opened at once. Raises InputError where nothing can be read.

    stride, retries, report: as `Stream` takes them, for videos and streams.
    """
    if stride < 1 or retries < 0:
        raise InputError(f"a video's stride is {stride} and a stream's retries are {retries}, expected 1 or more, and 0 or more")
    text = str(source)
    if not text.strip():
        raise InputError("source is empty, expected a picture, folder, glob, video, list, stream address or camera number")
    suffix = Path(text).suffix.lower()
    if suffix in (".txt", ".streams") and Path(text).is_file():
        parts = tuple(part for line in _lines(Path(text)) for part in _parts_of_line(text, line))
        if not parts:
            raise InputError(f"{text}: lists nothing")
        return Source(parts, suffix == ".streams", stride, retries, report)
    parts = _parts(text)
    opened = None
    if len(parts) == 1 and (isinstance(parts[0], int) or _is_video(parts[0])):
        opened = Stream(parts[0], stride, retries, report)
    return Source(parts, False, stride, retries, report, opened)


def _parts_of_line(path: str, line: str) -> tuple[str | int, ...]:
    try:
        return _parts(line, Path(path).parent)
    except (OSError, ValueError) as error:  # the name may be one that no file system takes; InputError is a ValueError
        raise InputError(f"{path}: {error}") from None


def _parts(text: str, folder: Path | None = None) -> tuple[str | int, ...]:
    """Return the parts that one name stands for. Raises InputError where there are none.

    folder: folder of the list that has the name, if any; relative names start there or in the working folder, and are no globs.
    """
    if text.startswith("file://"):  # the address of a file on this machine, not of a stream that may come back
        from urllib.request import url2pathname

        text = url2pathname(urlsplit(text).path)
    if text.isdecimal() and text.isascii() and not Path(text).exists():
        return (int(text),)
    if text.split()[:1] == ["screen"] and not Path(text).exists():
        raise InputError("screen: OcTrim does not read screens; record it into a video (ffmpeg -f x11grab, or gdigrab on Windows) and give that")
    if "://" in text:
        if (urlsplit(text).hostname or "").removeprefix("www.") in ("youtube.com", "youtu.be"):
            raise InputError(f"{text}: a page of YouTube, not a video; give what `yt-dlp -g {text}` prints")
        return (text,)
    path = _place(text, folder)
    if os.path.isdir(path):  # noqa: PTH112 (raises nothing, whatever the name)
        found = _readable(path.iterdir())
        if not found:
            raise InputError(f"{path}: no pictures in this folder, and no videos (looked for {', '.join((*SUFFIXES, *VIDEO_SUFFIXES))})")
        return found
    if os.path.isfile(path):  # noqa: PTH113
        return (str(path),)
    if folder is None and glob.has_magic(text):
        found = _readable(map(Path, glob.glob(text, recursive=True)))
        if not found:
            raise InputError(f"{text}: no pictures match, and no videos")
        return found
    raise InputError(f"{text}: no such file or folder")


def _place(text: str, folder: Path | None) -> Path:
    """Return the path that a name means: as it is written, else in another spelling (Windows' slashes, quotes, %20, bytes of another encoding)."""
    for one in (text, *spellings(text)):
        for place in (Path(one), *([] if folder is None else [folder / one])):
            if exists(str(place)):
                return place
    return Path(text)


def _readable(paths: Iterator[Path]) -> tuple[str, ...]:
    """Return the pictures among the paths and then the videos, each sorted."""
    files = sorted(path for path in paths if path.is_file())
    pictures = [path for path in files if is_picture(path.name)]
    videos = [path for path in files if path.suffix.lower() in VIDEO_SUFFIXES and not path.name.startswith(".")]
    return tuple(map(str, [*pictures, *videos]))


def _is_video(name: str) -> bool:
    """Tell whether OpenCV is to open this name as a video: a path by its suffix, and any address that is no picture on the web."""
    if "://" not in name:
        return Path(name).suffix.lower() in VIDEO_SUFFIXES
    parts = urlsplit(name)
    return parts.scheme not in ("http", "https") or Path(parts.path).suffix.lower() not in SUFFIXES


def _lines(path: Path) -> list[str]:
    """Return the lines of a list that are neither empty nor comments, in any encoding. Raises InputError where the file is too large or no text."""
    if path.stat().st_size > _MOST_BYTES:
        raise InputError(f"{path}: more than {_MOST_BYTES:,} bytes; no list needs that")
    try:
        lines = read_lines(str(path))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror or error}") from None
    if any("\0" in line for line in lines):
        raise InputError(f"{path}: not a text file; expected a path or an address per line")
    return [line.strip() for line in lines[:_MOST_LINES] if line.strip() and not line.lstrip().startswith("#")]


def _fetched(address: str) -> bytes:
    """Fetch the bytes of a picture from the web. Raises InputError where that fails or they are far too many."""
    import http.client
    import urllib.error
    import urllib.request

    name = without_password(address)
    try:
        request = urllib.request.Request(address, headers={"User-Agent": "octrim"})
        with urllib.request.urlopen(request, timeout=10) as answer:
            data = answer.read(_MOST_BYTES + 1)
    except urllib.error.HTTPError as error:
        raise InputError(f"{name}: the server answers {error.code} ({error.reason})") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        raise InputError(f"{name}: cannot be fetched: {shown(str(getattr(error, 'reason', error)))}") from None
    if len(data) > _MOST_BYTES:
        raise InputError(f"{name}: more than {_MOST_BYTES:,} bytes")
    return data


def _in_turns(streams: list[Iterator[Frame]]) -> Iterator[Frame]:
    """Yield a frame of each stream, then the next of each, until all have ended."""
    while streams:
        for stream in list(streams):
            frame = next(stream, None)
            if frame is None:
                streams.remove(stream)
            else:
                yield frame
