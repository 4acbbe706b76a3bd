"""Images and documents of a chat message as Bedrock's content blocks. Pure: bytes come along, or not at all.

Bedrock could read `s3://` URLs too, with our account's rights: a client must not reach our buckets, so they are refused
like every other URL.
"""

import binascii
import re
from collections.abc import Mapping
from typing import Any, Final

from providers.errors import UnsupportedError
from providers.json_values import members
from providers.messages import Part

DOCUMENT_NAME_MAX_CHARS: Final = 200
_IMAGE_FORMATS: Final = {
    "image/png": "png",
    "image/jpeg": "jpeg",
    "image/jpg": "jpeg",
    "image/gif": "gif",
    "image/webp": "webp",
}
_DOCUMENT_FORMATS: Final = {
    "application/pdf": "pdf",
    "text/csv": "csv",
    "application/msword": "doc",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": "docx",
    "application/vnd.ms-excel": "xls",
    "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet": "xlsx",
    "text/html": "html",
    "text/plain": "txt",
    "text/markdown": "md",
}
_DATA_URL = re.compile(r"data:([a-zA-Z0-9.+/-]{1,128})(?:;[a-zA-Z0-9=.+-]{1,64}){0,4};base64,")
_NAME_UNSAFE = re.compile(r"[^A-Za-z0-9()\[\]-]+")


def image_block(part: Part) -> dict[str, Any]:
    """An `image_url` part as an image block.

    Raises:
        UnsupportedError: It is behind a URL that only the client can fetch, or of a kind that Bedrock does not take.
    """
    url = part.image_url if isinstance(part.image_url, str) else members(part.image_url).get("url")
    if not isinstance(url, str):
        raise UnsupportedError("an image without a URL", param="image_url")
    kind, data = _data(url, "image")
    return {"image": {"format": _known(_IMAGE_FORMATS, kind), "source": {"bytes": data}}}


def document_block(part: Part, taken: set[str]) -> dict[str, Any]:
    """A `file` part as a document block, under a name that no other document of the request has.

    Raises:
        UnsupportedError: As for `image_block`.
    """
    file = members(part.file)
    url, name = file.get("file_data"), file.get("filename")
    if not isinstance(url, str):
        raise UnsupportedError(
            "Bedrock takes a file's content (file_data), not the id of one stored elsewhere", param="file"
        )
    kind, data = _data(url, "file")
    title = _document_name(name if isinstance(name, str) else "", taken)
    return {"document": {"format": _known(_DOCUMENT_FORMATS, kind), "name": title, "source": {"bytes": data}}}


def _data(url: str, what: str) -> tuple[str, str]:
    """The media type of a data URL and its base64 text, known to be sound; Bedrock's JSON takes it so."""
    head = _DATA_URL.match(url)
    if head is None:
        raise UnsupportedError(
            f"Bedrock fetches no {what} by itself: send it as a data: URL, base64",
            param=f"{what}_url" if what == "image" else what,
        )
    data = url[head.end() :]
    try:
        if not binascii.a2b_base64(data, strict_mode=True):
            raise UnsupportedError(f"an empty {what}", param=what)
    except (binascii.Error, ValueError):
        raise UnsupportedError(f"the {what}'s data URL is not base64", param=what) from None
    return head.group(1).lower(), data


def _known(formats: Mapping[str, str], kind: str) -> str:
    if kind not in formats:
        raise UnsupportedError(f"Bedrock does not take {kind[:60]}; it takes {', '.join(formats)}")
    return formats[kind]


def _document_name(name: str, taken: set[str]) -> str:
    """A name of letters, digits, single spaces, hyphens and brackets, as Bedrock wants it, and not used before."""
    stem = name.rpartition(".")[0] or name
    base = _NAME_UNSAFE.sub(" ", stem).strip()[: DOCUMENT_NAME_MAX_CHARS - 8].strip() or "document"
    chosen, number = base, 1
    while chosen in taken:
        number += 1
        chosen = f"{base} {number}"
    taken.add(chosen)
    return chosen
