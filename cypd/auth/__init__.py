"""Who are you: passwords, and the header they come in."""
