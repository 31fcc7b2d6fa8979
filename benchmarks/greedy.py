"""Run as a program: one client that pulls a large blob on many connections, until it is ended.

python -m benchmarks.greedy PORT PATH CONNECTIONS
"""

import sys
import threading

from benchmarks.http import Connection
from benchmarks.large_pulls import WINDOW


def run(port: int, path: str, connections: int) -> None:
    """Pull over and over, on each connection."""

    def pull() -> None:
        with Connection(port, window=WINDOW, address="127.0.0.2") as connection:
            while True:
                connection.discard(path)

    for _ in range(connections):
        threading.Thread(target=pull, daemon=True).start()
    sys.stdin.read()


if __name__ == "__main__":
    run(int(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
