"""The Go templates that rules and messages are written in."""
