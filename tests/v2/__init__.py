"""Tests of ``cypd.v2``."""
