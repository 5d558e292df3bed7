"""The command line: `cli.main`."""
