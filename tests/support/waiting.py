"""For what has no event that could be waited for."""

import asyncio
from collections.abc import Callable


async def until(true: Callable[[], object], *, within: float = 20) -> None:
    """Looks again and again. Raises TimeoutError after `within` seconds."""
    async with asyncio.timeout(within):
        while not true():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0.01)
