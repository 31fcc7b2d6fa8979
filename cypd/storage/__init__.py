"""Engines that keep blobs: files of this machine, and the in-memory twin for tests."""
