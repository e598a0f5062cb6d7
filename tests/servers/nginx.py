"""nginx with its stub_status page, and files from a directory."""

from __future__ import annotations

import os
from pathlib import Path

from tests.servers.http_call import answers_ok, call, must
from tests.servers.process import LOOPBACK, Server

CONFIG = """\
daemon off;
{user}
worker_processes 1;
pid {dir}/pid;
error_log stderr;
events {{ worker_connections 64; }}
http {{
  access_log off;
  client_body_temp_path {dir}/body;
  proxy_temp_path {dir}/proxy;
  fastcgi_temp_path {dir}/fastcgi;
  uwsgi_temp_path {dir}/uwsgi;
  scgi_temp_path {dir}/scgi;
  server {{
    listen {host}:{port};
    root {dir}/www;
    location = /nginx_status {{ stub_status; }}
  }}
}}
"""


class Nginx(Server):
    name = "nginx"

    @property
    def status_url(self) -> str:
        return f"{self.url}/nginx_status"

    @property
    def root(self) -> Path:
        """The directory whose files it shows."""
        return self.data_dir / "www"

    def prepare(self) -> None:
        self.root.mkdir()

    def command(self) -> list[str]:
        config = self.data_dir / "nginx.conf"
        user = "user www-data;" if os.geteuid() == 0 else ""
        config.write_text(CONFIG.format(user=user, dir=self.data_dir, host=LOOPBACK, port=self.port))
        return [self.name, "-e", "stderr", "-c", str(config)]

    def ready(self) -> bool:
        return answers_ok(self.status_url)

    def status(self) -> str:
        """The stub_status page."""
        return must(call(self.status_url)).text
