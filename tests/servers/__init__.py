"""Real servers on dynamic loopback ports, one file each, and in-tree stand-ins for what a network does wrong.

Every real server is a `Server` (see `process.py`): a context manager with `port`, `url` and `data_dir`.
`tests/conftest.py` has a fixture for each; a test that changes a server's configuration starts its own.
"""
