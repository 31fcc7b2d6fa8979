"""Turns of those who send large files."""

import asyncio
import time
from collections import Counter

from cypd.doors.plain.turns import SPAN, Turns


class Transfer:
    """One that always has more to send, as long as it is told to."""

    def __init__(self, turns: Turns, client: str, sent: Counter[str], seconds: float) -> None:
        self.turns = turns
        self.client = client
        self.sent = sent
        self.seconds = seconds

    def take_turn(self) -> None:
        """Be busy, and ask again when the socket is heard of: in the next turn of the loop."""
        self.sent[self.client] += 1
        end = time.perf_counter() + self.seconds
        while time.perf_counter() < end:
            pass
        asyncio.get_running_loop().call_soon(self.ask)

    def ask(self) -> None:
        """Wait for a turn."""
        if self.sent.total() < 400:
            self.turns.ask(self.client, self)


async def until_sent(sent: Counter[str]) -> int:
    """Wait until all is sent; return how many turns of the loop that took."""
    turns = 0
    while sent.total() < 400:
        await asyncio.sleep(0)
        turns += 1
    return turns


async def test_clients_share_alike() -> None:
    """Who has thirty transfers sends as much as who has one, when there is no time for all."""
    turns, sent = Turns(asyncio.get_running_loop()), Counter[str]()
    for client in ["greedy"] * 30 + ["modest"]:
        Transfer(turns, client, sent, SPAN / 2).ask()
    await until_sent(sent)

    assert 120 <= sent["modest"] <= 220  # by transfers it would be 13


async def test_everything_else_has_its_turn() -> None:
    """However many wait, one span of sending is followed by the rest of the loop's events."""
    turns, sent = Turns(asyncio.get_running_loop()), Counter[str]()
    for number in range(100):
        Transfer(turns, str(number), sent, SPAN / 4).ask()
    passed = await until_sent(sent)

    assert passed >= 400 / 5
    assert max(sent.values()) - min(sent.values()) <= 1


async def test_nobody_waits_without_need() -> None:
    """A transfer alone sends at once when it asks."""
    turns, sent = Turns(asyncio.get_running_loop()), Counter[str]()
    Transfer(turns, "only", sent, 0).ask()

    assert sent["only"] == 1
    await until_sent(sent)
