"""What is judged and who is told."""
