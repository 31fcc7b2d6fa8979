"""Where connections come in: each door runs an ASGI application and knows nothing of a registry."""
