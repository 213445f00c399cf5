"""One module a command, each with a function of its name."""
