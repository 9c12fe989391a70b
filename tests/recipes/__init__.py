"""The recipes of the documentation, with the real servers that they are for."""
