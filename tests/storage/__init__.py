"""Tests of ``cypd.storage``."""
