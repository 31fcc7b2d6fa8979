"""Measures cypd against nginx and CNCF distribution; see README.md for method and results."""
