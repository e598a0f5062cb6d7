"""What is measured: one file per source."""
