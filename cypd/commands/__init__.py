"""What the command line can do: a module a command, loaded when it is asked for."""
