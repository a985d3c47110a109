"""Decodes text of users' files in the encodings that editors and labelling tools write: UTF-8, UTF-16, UTF-32, GB18030 and others."""

from __future__ import annotations

import codecs
import re

_MARKS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF32_LE, "utf-32"), (codecs.BOM_UTF32_BE, "utf-32"))
_MARKS += ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))  # after UTF-32's marks, which begin like UTF-16's

_DECLARED = re.compile(rb"""^\s*<\?xml[^>]*?\bencoding\s*=\s*["']([A-Za-z0-9._:-]{1,40})["'][^>]*\?>""")
# Accented Latin letters mostly stand between plain ones, and Chinese characters in GB2312 are two bytes above 0x7f: text without two such is Latin.
_LONE_LETTERS = re.compile(rb"(?:[\x00-\x7f]|[\xc0-\xff](?![\x80-\xff]))*")
_HEADER = re.compile(r"^\s*<\?xml[^>]*\?>")
# A superset stands in for the encoding that a file declares: a "gb2312" of Windows holds characters that only GB18030 has.
_SUPERSETS = {"gb2312": "gb18030", "gbk": "gb18030", "big5": "big5hkscs", "shift_jis": "cp932", "euc_kr": "cp949", "iso8859-1": "cp1252"}
_NO_ENCODINGS = (b"ansi", b"unicode", b"mbcs")  # names by which editors on Windows declare the machine's own encoding
_ALLOWED = {
    *("utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "ascii", "gb2312", "gbk", "gb18030", "hz", "big5", "big5hkscs", "cp950"),
    *("shift_jis", "cp932", "shift_jisx0213", "euc_jp", "iso2022_jp", "euc_kr", "cp949", "iso2022_kr", "johab", "koi8-r", "koi8-u", "tis-620"),
    *(f"iso8859-{number}" for number in range(1, 17)),
    *(f"cp{number}" for number in (437, 850, 852, 866, 874, *range(1250, 1259))),
}


def mark_of(data: bytes) -> str | None:
    """Return the encoding whose byte order mark the bytes begin with, or None. UTF-16 without a mark is recognised by its zero bytes."""
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return encoding
    head = data[:64]
    if len(head) >= 4 and b"\0" in head:
        even, odd = head[::2].count(0), head[1::2].count(0)
        if odd > len(head) // 4 and not even:
            return "utf-16-le"
        if even > len(head) // 4 and not odd:
            return "utf-16-be"
    return None


def decoded(data: bytes) -> str:
    """Decode a file that declares no encoding: by its byte order mark, as UTF-8, as GB18030, which contains GBK and GB2312, or as Windows' Latin.

    Raises UnicodeDecodeError where the bytes are none of these.
    """
    encoding = mark_of(data)
    if encoding is not None:
        return data.decode(encoding)
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("cp1252" if _LONE_LETTERS.fullmatch(data) else "gb18030")


def decoded_paths(data: bytes) -> str:
    """Decode a list of paths by its byte order mark, else as UTF-8; bytes that are not UTF-8 are kept by `surrogateescape`."""
    encoding = mark_of(data)
    if encoding is not None:
        return data.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "replace")
    return data.decode("utf-8", "surrogateescape")


def respelled(path: str) -> str | None:
    """Read a path from `decoded_paths` whose bytes are not UTF-8 as GB18030; None where all of it is UTF-8, or it is not GB18030 either."""
    try:
        path.encode("utf-8")
        return None
    except UnicodeEncodeError:
        pass
    try:
        return path.encode("utf-8", "surrogateescape").decode("gb18030")
    except UnicodeError:
        return None


def decoded_xml(data: bytes) -> str:
    """Decode an XML document by the encoding that it declares, else as `decoded` does, and return it without its declaration.

    Raises UnicodeDecodeError for bytes that do not fit, and LookupError for an encoding that no labelling tool writes.
    """
    found = _DECLARED.match(data)
    if found is None or mark_of(data) is not None or found[1].lower() in _NO_ENCODINGS:
        text = decoded(data)
    else:
        encoding = codecs.lookup(found[1].decode("ascii")).name
        if encoding not in _ALLOWED:
            raise LookupError(f"encoding {encoding}")
        try:
            text = data.decode(_SUPERSETS.get(encoding, encoding))
        except UnicodeDecodeError:
            text = decoded(data)  # the declaration is wrong, as when an editor has saved the file in another encoding
    return _HEADER.sub("", text, count=1)
