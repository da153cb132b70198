"""The command line. `main` holds the tree of commands; each room of it is imported when it is used."""
