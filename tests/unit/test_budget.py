import asyncio

from imageprocessing_worker.budget import Budget


async def test_no_more_is_out_than_there_is_and_all_get_their_share() -> None:
    budget = Budget(10)
    out, most = 0, 0
    served: list[int] = []

    async def use(number: int, size: int) -> None:
        nonlocal out, most
        async with budget.take(size):
            out += size
            most = max(most, out)
            served.append(number)
            await asyncio.sleep(0)
            out -= size

    await asyncio.gather(*(use(i, 1 + i * 7 % 10) for i in range(100)))
    assert most <= 10
    assert served == list(range(100))


async def test_who_wants_more_than_there_is_gets_all() -> None:
    budget = Budget(10)
    async with budget.take(1000):
        other = asyncio.create_task(budget.take(1).__aenter__())
        await asyncio.sleep(0)
        assert not other.done()
    await other


async def test_who_leaves_while_waiting_takes_nothing() -> None:
    budget = Budget(10)
    async with budget.take(10):
        waiting = asyncio.create_task(budget.take(10).__aenter__())
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    async with asyncio.timeout(10), budget.take(10):
        pass
