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


FOR_A_BACKUP = """
import sys
import agent.cli.backup_helper_cmd, agent.cli.backup_drill, agent.cli.backup_drill_helper_cmd, agent.cli.backup_worker
import agent.config.hostname, backup.worker, backup.sources.files, backup.sources.postgresql, backup.targets.local
rooms = {name.split(".")[0] for name in sys.modules}
print(*sorted({"asyncio", "ssl", "rich", "alerting", "sinks", "collectors"} & rooms))
"""


def test_a_backup_imports_nothing_of_the_rest_of_the_agent() -> None:
    done = subprocess.run([sys.executable, "-c", FOR_A_BACKUP], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "\n"


def test_whoever_wants_uvicorn_s_command_line_later_gets_it() -> None:
    code = "import agent.http.lean_uvicorn, uvicorn.main; print(callable(uvicorn.main.run))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "True\n"
