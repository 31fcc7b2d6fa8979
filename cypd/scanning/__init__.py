"""Which vulnerabilities images have: who asks, what looks, and what is kept of it."""
