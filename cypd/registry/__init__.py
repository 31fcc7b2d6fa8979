"""The rules of a registry: async, without HTTP, without an engine."""
