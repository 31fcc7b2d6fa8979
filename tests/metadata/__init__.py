"""Tests of ``cypd.metadata``."""
