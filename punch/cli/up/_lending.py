"""Lends memory beside the listener of `punch up`, and tries again where that does not work yet."""

from __future__ import annotations

import trio

from ..._logs import get_logger
from ...events import Bus
from ...exceptions import PunchError
from ...listener import Listener
from ...settings import LendingSettings

log = get_logger("punch.up")

# Building an engine takes ten minutes, and unplugging a device seconds.
RETRY_SECONDS = 15.0


class Lending:
    """What is lent, if anything is."""

    def __init__(self) -> None:
        self.lends = False
        """Whether memory can be borrowed here now."""
        self.trouble: str | None = None
        """Why it cannot, though it should."""

    async def run(self, listener: Listener, settings: LendingSettings, events: Bus) -> None:
        """Lend beside *listener*, for as long as this is not cancelled."""
        # Here: it brings certificates with it, which few machines need.
        from ..splits._worker import open_worker_beside

        while True:
            try:
                async with open_worker_beside(listener, settings, events):
                    self.lends, self.trouble = True, None
                    await trio.sleep_forever()
            except PunchError as error:
                self.trouble = error.message
                log.warning("nothing is lent", why=error.message)
            finally:
                self.lends = False
            await trio.sleep(RETRY_SECONDS)
