"""What goes by the rules of retention."""
