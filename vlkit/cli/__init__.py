"""The command line: arguments in, one call, pretty output."""
