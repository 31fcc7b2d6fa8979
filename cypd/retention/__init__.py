"""Which tags the rules of their projects keep no longer, and what takes them away."""
