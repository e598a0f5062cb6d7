"""The tests mirror the rooms; `tests.servers` holds the real servers and the stand-ins they talk to."""
