"""What `vigilhost doctor` looks at: small checks that read facts and give findings. The daemon never imports it."""
