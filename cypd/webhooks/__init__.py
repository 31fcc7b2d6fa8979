"""Webhooks: what happened is told to a URL that a project names."""
