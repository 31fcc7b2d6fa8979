"""The vocabulary of the OCI Distribution Specification 1.1, pure: no I/O, no await."""
