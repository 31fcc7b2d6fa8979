"""A storage-optimised OCI registry daemon for one host."""

__version__ = "0.1.0"
