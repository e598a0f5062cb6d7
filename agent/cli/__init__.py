"""The command line: `vigilhost`."""
