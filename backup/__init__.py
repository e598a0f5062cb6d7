"""What is kept safe: verified copies of databases, files, volumes and images."""
