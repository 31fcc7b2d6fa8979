"""The product's own API, ``/api/v1``: an envelope around JSON, declared route by route."""
