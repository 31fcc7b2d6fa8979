"""Who may do what, on every route, with every credential."""
