"""One holder at a time; a later one has a greater epoch, whatever Redis has forgotten."""

import asyncio

from controlplane.link import lease as module
from controlplane.link.connection import end
from controlplane.link.lease import Lease


async def test_the_second_waits_until_the_first_gives_it_back(redis, names):
    first, second = Lease(redis, names, "a:1"), Lease(redis, names, "b:2")
    assert await first.take() and first.held
    assert not await second.take() and not second.held
    assert await second.holder() == "a:1"
    await first.release()
    assert not first.held
    assert await second.take() and second.epoch > first.epoch


async def test_a_lease_that_redis_lost_is_kept_unless_another_took_it(redis, names, monkeypatch):
    monkeypatch.setattr(module, "RENEW_EVERY_S", 0.01)
    first, second = Lease(redis, names, "a:1"), Lease(redis, names, "b:2")
    await first.take()
    await redis.delete(names.lease, names.epoch)
    keeping = asyncio.create_task(first.keep())
    while not await redis.exists(names.lease):
        await asyncio.sleep(0.01)
    assert first.held and not await second.take()
    await redis.delete(names.lease, names.epoch)
    if await second.take():  # or the first was faster: then it holds it, and the second does not
        await asyncio.wait_for(keeping, 5)
        assert not first.held and second.held and second.epoch > first.epoch
    else:
        assert first.held
    await end([keeping])


async def test_its_holder_stops_believing_in_it_before_redis_drops_it(redis, names, monkeypatch):
    monkeypatch.setattr(module, "BELIEVED_S", 0.05)
    lease = Lease(redis, names, "a:1")
    await lease.take()
    await asyncio.sleep(0.06)
    assert not lease.held and await redis.exists(names.lease)
    await asyncio.wait_for(lease.keep(), 1)  # returns: it is lost
