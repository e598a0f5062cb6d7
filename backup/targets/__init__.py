"""Where copies can be kept: one file per kind of place."""
