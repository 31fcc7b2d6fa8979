"""Accounts on LMDB."""

import msgspec

from cypd.accounts.ports import User
from cypd.metadata.lmdb.environment import Environment

_encode = msgspec.msgpack.Encoder().encode
_decode_user = msgspec.msgpack.Decoder(User).decode


class LmdbAccounts:
    """Users; see ``keys`` for the layout."""

    def __init__(self, environment: Environment) -> None:
        self._begin = environment.lmdb.begin
        self._run = environment.writer.run
        self._users = environment.database("users")

    def user(self, name: str) -> User | None:
        key = name.encode()
        if not 0 < len(key) <= 500:
            return None
        with self._begin() as txn:
            record = txn.get(key, db=self._users)
        return None if record is None else _decode_user(record)

    async def put_user(self, user: User) -> None:
        await self._run(lambda txn: txn.put(user.name.encode(), _encode(user), db=self._users))
