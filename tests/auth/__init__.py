"""Tests of ``cypd.auth``."""
