"""The `swinir` command: one module per subcommand. Only this package parses, prints and exits."""
