"""Starts alerts once somebody is to be told: nothing else of them is loaded before."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from gateway.config.catalogue import Catalogue
from providers.base import Transport

LOOK_EVERY_S: Final = 15.0
"""How often it is looked whether a changed configuration names anybody."""


async def tell_on(home: Path, catalogue: Callable[[], Catalogue], transport: Transport) -> None:
    """Tell who is to be told, until cancelled.

    Args:
        home: MIXGATE_HOME. The one process that writes the store there runs this.
        catalogue: What is configured now.
        transport: Follows no redirects, and knows no proxies.
    """
    while not catalogue().gateway.alerts:  # noqa: ASYNC110  # nobody is told when it changes
        await asyncio.sleep(LOOK_EVERY_S)
    # The reports, and the library that tries again, are loaded only where somebody is to be told.
    from gateway.alerts.alerts import Alerts  # noqa: PLC0415

    await Alerts(home, catalogue, transport).run()
