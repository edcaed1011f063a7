"""The lease: which engine process is the active one of its node group, and its epoch.

Rule: a holder believes in its lease for less time than Redis keeps it (`BELIEVED_S` < `KEPT_S`), counted from before it
asked, so that it has stopped before another may start. Every holder has a greater epoch than all before it, even when
Redis has lost what it held (then the clock sees to that); what an older epoch still says is ignored.
Must not know: what the holder does.
"""

import asyncio
import logging
import time
from contextlib import suppress

from redis.asyncio import Redis

from controlplane.link.connection import AGAIN_S, AWAY, Names

log = logging.getLogger("narrowgauge.lease")

KEPT_S = 4.0  # how long Redis keeps a lease that nobody renews
BELIEVED_S = 3.0  # how long its holder counts on it
RENEW_EVERY_S = 0.75
LOOK_EVERY_S = 0.25  # how often a standby looks whether it is free

_TAKE = """
if redis.call('EXISTS', KEYS[1]) == 1 then return false end
local now = redis.call('TIME')
local ms = now[1] * 1000 + math.floor(now[2] / 1000)
local epoch = string.format('%.0f', math.max((tonumber(redis.call('GET', KEYS[2])) or 0) + 1, ms))
redis.call('SET', KEYS[2], epoch)
redis.call('SET', KEYS[1], epoch .. ' ' .. ARGV[1], 'PX', ARGV[2])
return epoch
"""
# A lease that Redis has lost is taken up again, unless another engine has had it since.
_RENEW = """
local mine = ARGV[1] .. ' ' .. ARGV[2]
local held = redis.call('GET', KEYS[1])
local epoch = redis.call('GET', KEYS[2])
if held and held ~= mine then return 0 end
if epoch and epoch ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[2], ARGV[1])
redis.call('SET', KEYS[1], mine, 'PX', ARGV[3])
return 1
"""
_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


class Lease:
    """`take` until it is yours, `keep` while you serve, `release` when you stop. `owner` names the process."""

    def __init__(self, redis: Redis, names: Names, owner: str) -> None:
        self._redis = redis
        self._keys = (names.lease, names.epoch)
        self._owner = owner
        self._until = 0.0  # monotonic
        self.epoch = 0

    @property
    def held(self) -> bool:
        """Whether this process may act as the active engine at this moment."""
        return time.monotonic() < self._until

    async def take(self) -> bool:
        """One try; True when the lease is ours. Raises what a Redis that is away raises."""
        asked = time.monotonic()
        epoch = await self._redis.eval(_TAKE, 2, *self._keys, self._owner, int(KEPT_S * 1000))
        if epoch is None:
            return False
        self.epoch, self._until = int(epoch), asked + BELIEVED_S
        return True

    async def holder(self) -> str:
        """Who holds it now; "" for nobody."""
        held = await self._redis.get(self._keys[0])
        return held.decode().partition(" ")[2] if held else ""

    async def keep(self) -> None:
        """Renew it; returns when it is lost."""
        while self.held:
            await asyncio.sleep(RENEW_EVERY_S)
            asked = time.monotonic()
            try:
                async with asyncio.timeout(max(0.01, self._until - asked)):
                    ours = await self._redis.eval(_RENEW, 2, *self._keys, self.epoch, self._owner, int(KEPT_S * 1000))
            except AWAY as error:
                log.warning("the lease is not renewed: %s", str(error) or "no answer in time")
                await asyncio.sleep(AGAIN_S)
                continue
            if not ours:
                self._until = 0.0
                break
            self._until = asked + BELIEVED_S
        log.error("the lease of epoch %d is lost", self.epoch)

    async def release(self) -> None:
        """Give it back, so that a standby need not wait for it to run out."""
        self._until = 0.0
        with suppress(*AWAY):  # then it runs out by itself
            await self._redis.eval(_RELEASE, 1, self._keys[0], f"{self.epoch} {self._owner}")
