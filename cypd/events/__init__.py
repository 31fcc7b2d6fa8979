"""What happened to projects and their repositories, told in the order in which it happened."""
