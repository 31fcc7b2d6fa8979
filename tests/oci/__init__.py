"""Tests of ``cypd.oci``."""
