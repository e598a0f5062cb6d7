"""What `vigilhost influx` does to an InfluxDB 2: buckets, retention, tasks. The daemon never imports it."""
