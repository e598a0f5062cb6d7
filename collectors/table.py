"""The names of our collectors. A class is imported when its collector is turned on."""

from __future__ import annotations

import sys
from collections.abc import Mapping

BUILTIN: Mapping[str, str] = {
    "agent": "agent.telemetry:SelfMetrics",
    "arp": "collectors.arp:Arp",
    "bonding": "collectors.bonding:Bonding",
    "conntrack": "collectors.conntrack:Conntrack",
    "cpu": "collectors.cpu:Cpu",
    "cpufreq": "collectors.cpufreq:Cpufreq",
    "disk": "collectors.disk:Disk",
    "diskio": "collectors.diskio:DiskIO",
    "edac": "collectors.edac:Edac",
    "exec": "collectors.exec:Exec",
    "filefd": "collectors.filefd:Filefd",
    "hwmon": "collectors.hwmon:Hwmon",
    "interrupts": "collectors.interrupts:Interrupts",
    "kernel": "collectors.kernel:Kernel",
    "mdadm": "collectors.mdadm:Mdadm",
    "memory": "collectors.memory:Memory",
    "net": "collectors.net:Net",
    "netclass": "collectors.netclass:NetClass",
    "nstat": "collectors.nstat:NStat",
    "nvme": "collectors.nvme:NVMe",
    "os": "collectors.uname:Uname",
    "portable": "collectors.portable:Portable",
    "power_supply": "collectors.power_supply:PowerSupply",
    "pressure": "collectors.pressure:Pressure",
    "processes": "collectors.processes:Processes",
    "prometheus": "collectors.prometheus:Prometheus",
    "schedstat": "collectors.schedstat:Schedstat",
    "sockstat": "collectors.sockstat:SockStat",
    "softirqs": "collectors.softirqs:Softirqs",
    "softnet": "collectors.softnet:SoftNet",
    "swap": "collectors.swap:Swap",
    "system": "collectors.system:System",
    "systemd": "collectors.systemd:Systemd",
    "tcpstat": "collectors.tcpstat:TcpStat",
    "textfile": "collectors.textfile:Textfile",
    "thermal": "collectors.thermal:Thermal",
    "time": "collectors.wallclock:Wallclock",
    "timex": "collectors.timex:Timex",
    "udp_queues": "collectors.udp_queues:UdpQueues",
    "vmstat": "collectors.vmstat:Vmstat",
}

# exec and prometheus need to be told what to read; portable is for hosts where the others find nothing.
OFF_BY_DEFAULT: frozenset[str] = frozenset(
    {"exec", "prometheus", *(["portable"] if sys.platform.startswith("linux") else [])}
)
