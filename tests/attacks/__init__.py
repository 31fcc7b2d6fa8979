"""Attacks on a running daemon: raw bytes in, and what must never come of them."""
