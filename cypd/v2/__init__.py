"""The OCI Distribution API below ``/v2/``: HTTP on one side, the registry's rules on the other."""
