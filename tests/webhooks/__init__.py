"""Tests of ``cypd.webhooks``."""
