"""The command line: one module per subcommand, each parses, calls one function and prints."""
