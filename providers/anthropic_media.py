"""Images and documents as Anthropic takes them: inside the request, or by an https URL that Anthropic fetches."""

import binascii
from base64 import b64decode
from typing import Any
from urllib.parse import unquote_to_bytes

from providers.errors import UnsupportedError
from providers.json_values import members

IMAGE_TYPES = frozenset({"image/jpeg", "image/png", "image/gif", "image/webp"})
FILE_ID_PREFIX = "file_"
"""Of Anthropic's own files. Ids of other providers mean nothing there."""

Block = dict[str, Any]


def image_block(image: dict[str, Any] | str | None) -> Block:
    """An image block of OpenAI's `image_url`.

    Raises:
        UnsupportedError: A kind of image, or of URL, that Anthropic does not take.
    """
    url = image if isinstance(image, str) else members(image).get("url")
    if not isinstance(url, str):
        raise UnsupportedError("an image part needs `image_url.url`", param="messages")
    if url[:5].lower() != "data:":
        return {"type": "image", "source": {"type": "url", "url": _https(url)}}
    media_type, data, in_base64 = _data_url(url)
    if not in_base64 or media_type not in IMAGE_TYPES:
        raise UnsupportedError("Anthropic takes JPEG, PNG, GIF and WebP images, in base64", param="messages")
    return {"type": "image", "source": {"type": "base64", "media_type": media_type, "data": data}}


def document_block(file: dict[str, Any]) -> Block:
    """A document block of OpenAI's `file` part: a PDF or plain text, an https URL of a PDF, or a file of Anthropic's.

    Raises:
        UnsupportedError: Some other kind of file.
    """
    data, file_id, name = file.get("file_data"), file.get("file_id"), file.get("filename")
    if isinstance(data, str) and data:
        block: Block = {"type": "document", "source": _document_source(data)}
    elif isinstance(file_id, str) and file_id.startswith(FILE_ID_PREFIX):
        block = {"type": "document", "source": {"type": "file", "file_id": file_id}}
    else:
        raise UnsupportedError("a file part needs `file_data`, or the id of a file at Anthropic", param="messages")
    if isinstance(name, str) and name:
        block["title"] = name
    return block


def _document_source(data: str) -> Block:
    if data[:5].lower() != "data:":
        return {"type": "url", "url": _https(data)}
    media_type, text, in_base64 = _data_url(data)
    if media_type == "application/pdf" and in_base64:
        return {"type": "base64", "media_type": media_type, "data": text}
    if media_type == "text/plain":
        try:
            plain = (b64decode(text, validate=True) if in_base64 else unquote_to_bytes(text)).decode()
        except (binascii.Error, UnicodeDecodeError):
            raise UnsupportedError("a text file must be UTF-8", param="messages") from None
        return {"type": "text", "media_type": media_type, "data": plain}
    raise UnsupportedError("Anthropic takes PDF files in base64 and plain text", param="messages")


def _data_url(url: str) -> tuple[str, str, bool]:
    """Media type, data, and whether the data are in base64."""
    head, _, data = url[5:].partition(",")
    media_type, *options = (option.strip().lower() for option in head.split(";"))
    return media_type, data, "base64" in options


def _https(url: str) -> str:
    if url[:8].lower() != "https://":
        raise UnsupportedError("Anthropic fetches only https URLs, and takes data: URLs", param="messages")
    return url
