"""Tests of ``cypd.projects``."""
