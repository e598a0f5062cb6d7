"""The HTTP face: /metrics, /health and the query API."""
