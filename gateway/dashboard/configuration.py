"""A configuration on its way to the process beside the gateway: without its secrets, of which judging takes none."""

from typing import Final

import msgspec
from msgspec.structs import replace

from gateway.config.catalogue import Catalogue, GatewaySettings

_encode: Final = msgspec.msgpack.Encoder(enc_hook=str).encode
_decoder: Final = msgspec.msgpack.Decoder(Catalogue, dec_hook=lambda kind, value: kind(value))


def pack_catalogue(catalogue: Catalogue) -> bytes:
    """A configuration as bytes: no key, no token, no setting of the gateway itself."""
    providers = {name: replace(one, api_key=None, proxy=None) for name, one in catalogue.providers.items()}
    return _encode(replace(catalogue, providers=providers, gateway=GatewaySettings()))


def unpack_catalogue(data: bytes) -> Catalogue:
    """What `pack_catalogue` made."""
    return _decoder.decode(data)
