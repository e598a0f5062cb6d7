"""Who is told, and in which words."""
