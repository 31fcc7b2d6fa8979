"""Tests of ``cypd.accounts``."""
