"""Engines that keep metadata: LMDB, and the in-memory model it is held against."""
