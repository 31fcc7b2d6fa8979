"""Tests of ``cypd.registry``."""
