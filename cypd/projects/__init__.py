"""Projects: whose repositories are whose, who may do what in them, and how much they may hold."""
