"""What is measured: counted by each worker in a page of its own, told for all of them at once."""
