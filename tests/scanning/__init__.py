"""Tests of ``cypd.scanning``."""
