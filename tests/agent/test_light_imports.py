"""What the daemon does not import, because each of these costs megabytes that it would keep for ever."""

from __future__ import annotations

import subprocess
import sys

HEAVY = {
    "click", "rich.console", "multiprocessing", "uvicorn.main", "re2", "numpy", "psutil", "prometheus_client",
    "urllib3", "influxdb_client", "obstore", "cronsim", "apprise", "jinja2", "pydantic",
}  # fmt: skip
CODE = f"""
import sys
sys.argv = ["vigilhost", "run", "--help"]
from agent.cli.main import main
try:
    main()
except SystemExit:
    pass
import agent.daemon, agent.history_keeper, agent.alert_keeper, agent.backup_keeper
print(*sorted({HEAVY} & set(sys.modules)))
"""


def test_the_daemon_imports_nothing_heavy() -> None:
    done = subprocess.run([sys.executable, "-c", CODE], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.splitlines()[-1] == ""


def test_whoever_wants_uvicorn_s_command_line_later_gets_it() -> None:
    code = "import agent.http.lean_uvicorn, uvicorn.main; print(callable(uvicorn.main.run))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"
