"""The rules that come with the agent: each fires on what it is about, and is quiet on a healthy host."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import click
import pytest

from agent.cli.group import cli
from agent.core.labels import labels_of
from agent.promql_language import PromQL
from agent.rule_sets import default_rule_files, load_rules, rules_directory
from agent.rules_lab import RulesLab
from alerting.default_inhibitions import default_inhibitions
from alerting.dependencies import NothingKnown
from alerting.engine import Engine
from alerting.inhibition import Inhibitor
from alerting.notify.message import Alert
from alerting.options import AlertingOptions, RulesOptions
from alerting.rule_files import read_rule_files
from alerting.rule_overrides import RuleOverride
from alerting.rules import AlertRule, RuleGroup
from tests.servers import promtool

T0 = 1_700_000_000
STEP_S = 60
BEFORE_S = 6 * 3600
HOST = 'instance="h"'
DB = f'{HOST},exported_job="db"'

FOUND = read_rule_files(default_rule_files(), PromQL())
RULES = {rule.name: rule for _, rule in FOUND.rules() if isinstance(rule, AlertRule)}

# A series that is not `quiet` is `breaching`: first value, and by how much it changes each second.
Line = tuple[float, float]
GB = 1e9
SIZE = {f'node_filesystem_size_bytes{{{HOST},device="/dev/sda1",fstype="ext4",mountpoint="/"}}': (100 * GB, 0.0)}
AVAIL = f'node_filesystem_avail_bytes{{{HOST},device="/dev/sda1",fstype="ext4",mountpoint="/"}}'
READONLY = {f'node_filesystem_readonly{{{HOST},device="/dev/sda1",fstype="ext4",mountpoint="/"}}': (0.0, 0.0)}
MEMORY = {f"node_memory_MemTotal_bytes{{{HOST}}}": (16 * GB, 0.0)}
PACKETS = {
    f'node_network_{way}_{what}_total{{{HOST},device="eth0"}}': (0.0, rate)
    for way, what, rate in (("receive", "packets", 100.0), ("transmit", "packets", 100.0), ("transmit", "errs", 0.0))
}

# name: (series that both hosts have, the series that differs, on a host in trouble, on a healthy one)
CASES: dict[str, tuple[dict[str, Line], str, Line, Line]] = {
    "HostCpuBusy": ({}, f'node_cpu_seconds_total{{{HOST},cpu="0",mode="idle"}}', (0, 0.01), (0, 0.5)),
    "HostCpuStolen": ({}, f'node_cpu_seconds_total{{{HOST},cpu="0",mode="steal"}}', (0, 0.3), (0, 0.01)),
    "HostCpuPressure": ({}, f"node_pressure_cpu_waiting_seconds_total{{{HOST}}}", (0, 0.8), (0, 0.1)),
    "HostMemoryLow": (MEMORY, f"node_memory_MemAvailable_bytes{{{HOST}}}", (GB, 0), (8 * GB, 0)),
    "HostMemoryExhausted": (MEMORY, f"node_memory_MemAvailable_bytes{{{HOST}}}", (0.2 * GB, 0), (GB, 0)),
    "HostMemoryPressure": ({}, f"node_pressure_memory_stalled_seconds_total{{{HOST}}}", (0, 0.2), (0, 0.01)),
    "HostOutOfMemoryKill": ({}, f"node_vmstat_oom_kill{{{HOST}}}", (0, 0.01), (7, 0)),
    "HostSwapping": (
        {f"node_vmstat_pswpout{{{HOST}}}": (0, 10)}, f"node_vmstat_pswpin{{{HOST}}}", (0, 5000), (0, 10),
    ),
    "HostDiskFull": ({**SIZE, **READONLY}, AVAIL, (5 * GB, 0), (50 * GB, 0)),
    "HostDiskFullCritical": ({**SIZE, **READONLY}, AVAIL, (GB, 0), (5 * GB, 0)),
    "HostDiskFillsSoon": ({**SIZE, **READONLY}, AVAIL, (60 * GB, -1.5e6), (30 * GB, -1000)),
    "HostInodesLow": (
        {AVAIL.replace("avail_bytes", "files"): (1000, 0)}, AVAIL.replace("avail_bytes", "files_free"), (10, 0),
        (500, 0),
    ),
    "HostFilesystemError": ({}, AVAIL.replace("avail_bytes", "device_error"), (1, 0), (0, 0)),
    "HostFilesystemTurnedReadOnly": ({}, next(iter(READONLY)), (-21599.0, 1.0), (1, 0)),
    "HostDiskSaturated": ({}, f'node_disk_io_time_seconds_total{{{HOST},device="sda"}}', (0, 0.99), (0, 0.3)),
    "HostIoPressure": ({}, f"node_pressure_io_stalled_seconds_total{{{HOST}}}", (0, 0.7), (0, 0.1)),
    "HostRaidDegraded": (
        {f'node_md_disks_required{{{HOST},device="md0"}}': (2, 0)},
        f'node_md_disks{{{HOST},device="md0",state="active"}}', (1, 0), (2, 0),
    ),
    "HostMemoryErrors": ({}, f'node_edac_uncorrectable_errors_total{{{HOST},controller="0"}}', (0, 0.01), (3, 0)),
    "HostTooHot": ({}, f'node_thermal_zone_temp{{{HOST},type="x86_pkg_temp",zone="0"}}', (95, 0), (60, 0)),
    "HostNetworkErrors": (PACKETS, f'node_network_receive_errs_total{{{HOST},device="eth0"}}', (0, 10), (0, 0.01)),
    "HostConnectionTableFull": (
        {f"node_nf_conntrack_entries_limit{{{HOST}}}": (1000, 0)}, f"node_nf_conntrack_entries{{{HOST}}}", (900, 0),
        (100, 0),
    ),
    "HostFileDescriptorsLow": (
        {f"node_filefd_maximum{{{HOST}}}": (1000, 0)}, f"node_filefd_allocated{{{HOST}}}", (900, 0), (100, 0),
    ),
    "HostClockOff": (
        {f"node_timex_sync_status{{{HOST}}}": (1, 0)}, f"node_timex_offset_seconds{{{HOST}}}", (-0.5, 0), (0.001, 0),
    ),
    "HostClockNotSynchronised": (
        {f"node_timex_maxerror_seconds{{{HOST}}}": (20, 0)}, f"node_timex_sync_status{{{HOST}}}", (0, 0), (1, 0),
    ),
    "HostServiceFailed": (
        {}, f'node_systemd_unit_state{{{HOST},name="nginx.service",state="failed"}}', (1, 0), (0, 0),
    ),
    "HostServiceRestarts": (
        {}, f'node_systemd_service_restart_total{{{HOST},name="nginx.service"}}', (0, 0.01), (4, 0),
    ),
    "HostRebooted": (
        {f"node_time_seconds{{{HOST}}}": (T0 - BEFORE_S, 1)}, f"node_boot_time_seconds{{{HOST}}}", (T0 - 60, 0),
        (T0 - 90_000, 0),
    ),
    "HostTextfileError": ({}, f"node_textfile_scrape_error{{{HOST}}}", (1, 0), (0, 0)),
    "AgentDiskRefusesJournal": ({}, f"vigilhost_journal_failing{{{HOST}}}", (1, 0), (0, 0)),
    "AgentDiskRefusesHistory": ({}, f"vigilhost_history_failing{{{HOST}}}", (1, 0), (0, 0)),
    "AgentLosesReadings": ({}, f"vigilhost_journal_dropped_records_total{{{HOST}}}", (0, 1), (5, 0)),
    "AgentSinkDown": ({}, f'vigilhost_sink_up{{{HOST},sink="influx"}}', (0, 0), (1, 0)),
    "AgentSinkNeedsYou": ({}, f'vigilhost_sink_lasting_error{{{HOST},sink="influx"}}', (1, 0), (0, 0)),
    "AgentDeadLetters": ({}, f'vigilhost_sink_dead_letters_total{{{HOST},sink="influx"}}', (0, 1), (5, 0)),
    "AgentReloadRefused": ({}, f"vigilhost_config_last_reload_successful{{{HOST}}}", (0, 0), (1, 0)),
    "AgentRulesFail": ({}, f"vigilhost_alerting_failing_rules{{{HOST}}}", (2, 0), (0, 0)),
    "AgentReceiverFails": ({}, f'vigilhost_receiver_failing{{{HOST},receiver="ops"}}', (1, 0), (0, 0)),
    "AgentReceiverRefuses": ({}, f'vigilhost_receiver_refused_total{{{HOST},receiver="ops"}}', (0, 0.01), (5, 0)),
    "AgentMemoryHigh": ({}, f"vigilhost_agent_resident_memory_bytes{{{HOST}}}", (3e8, 0), (5e7, 0)),
    "AgentLoopLate": ({}, f"vigilhost_agent_loop_lag_seconds{{{HOST}}}", (2, 0), (0.001, 0)),
    "AgentMountsHang": ({}, f"vigilhost_agent_stuck_mounts{{{HOST}}}", (1, 0), (0, 0)),
    "BackupOverdue": (
        {f'vigilhost_backup_rpo_target_seconds{{{DB}}}': (86_400, 0)},
        f'vigilhost_backup_rpo_age_seconds{{{DB}}}', (90_000, 1), (0, 1),
    ),
    "BackupFailed": ({}, f'vigilhost_backup_status{{{DB},state="fail"}}', (1, 0), (0, 0)),
    "BackupNeverRan": ({}, f'vigilhost_backup_status{{{DB},state="never"}}', (1, 0), (0, 0)),
    "BackupRuns": ({}, f"vigilhost_backup_running{{{DB}}}", (1, 0), (0, 0)),
    "BackupWillNotFit": (
        {f'vigilhost_backup_free_bytes{{{DB},target="disk"}}': (10 * GB, 0)},
        f'vigilhost_backup_expected_bytes{{{DB},target="disk"}}', (11 * GB, 0), (9 * GB, 0),
    ),
    "BackupNeverDrilled": (
        {f'vigilhost_backup_last_success_timestamp_seconds{{{DB},target="disk"}}': (T0, 0),
         f'vigilhost_backup_last_drill_timestamp_seconds{{{DB}}}': (0, 0),
         f'vigilhost_backup_drill_age_target_seconds{{{DB}}}': (90 * 86_400, 0)},
        f'vigilhost_backup_drill_age_seconds{{{DB}}}', (91 * 86_400, 1), (35 * 86_400, 1),
    ),
    "BackupDrillNotDone": ({}, f"vigilhost_backup_drill_done{{{DB}}}", (0, 0), (1, 0)),
    "BackupDrillFailed": ({}, f"vigilhost_backup_drill_passed{{{DB}}}", (0, 0), (1, 0)),
    "BackupRestoreTooSlow": (
        {f"vigilhost_backup_rto_target_seconds{{{DB}}}": (3600, 0)},
        f"vigilhost_backup_rto_measured_seconds{{{DB}}}", (4000, 0), (60, 0),
    ),
    "BackupShrank": ({}, f'vigilhost_backup_size_bytes{{{DB}}}', (100 * GB, -4e6), (100 * GB, -1000)),
    "BackupNotVerified": (
        {}, f'vigilhost_backup_last_verified_timestamp_seconds{{{DB}}}', (T0 - 9 * 86_400, 0), (T0, 0),
    ),
    "BackupNeverVerified": (
        {f'vigilhost_backup_last_success_timestamp_seconds{{{DB}}}': (T0, 0)},
        f'vigilhost_backup_last_verified_timestamp_seconds{{{DB}}}', (0, 0), (T0, 0),
    ),
    "BackupDrillOverdue": (
        {f'vigilhost_backup_last_drill_timestamp_seconds{{{DB}}}': (T0 - 91 * 86_400, 0),
         f'vigilhost_backup_drill_age_target_seconds{{{DB}}}': (90 * 86_400, 0)},
        f'vigilhost_backup_drill_age_seconds{{{DB}}}', (91 * 86_400, 1), (35 * 86_400, 1),
    ),
}  # fmt: skip
# Read-only for an hour now: the healthy host has been so for ever, the other one was writable in the hour before.
CLAMPED = {"HostFilesystemTurnedReadOnly"}


def phase(rule: AlertRule, series: dict[str, Line]) -> str:
    """What becomes of the rule's alerts when the series have gone on like this for hours and its `for` has passed."""
    language, lab = PromQL(), RulesLab()
    until = int(rule.hold) + 2 * STEP_S
    for text, (first, slope) in series.items():
        values = [(at, first + slope * (at + BEFORE_S)) for at in range(-BEFORE_S, until + 1, STEP_S)]
        if rule.name in CLAMPED:
            values = [(at, min(max(value, 0.0), 1.0)) for at, value in values]
        lab.load(language.series(text), [((T0 + at) * 1000, value) for at, value in values])
    engine = Engine(lab, lab, NothingKnown())
    engine.load([RuleGroup("g", "f", (rule,), rule.place)], T0)
    errors = []
    for at in range(0, until + 1, max(STEP_S, until // 40 // STEP_S * STEP_S)):
        errors += engine.evaluate("f;g", T0 + at).errors
    assert errors == []
    (state,) = engine.groups["f;g"].rules
    assert state.health.remark == ""
    return state.phase


def test_every_default_rule_has_a_case() -> None:
    assert sorted(CASES) == sorted(RULES)


@pytest.mark.parametrize("name", CASES)
def test_a_default_rule_fires_on_trouble_and_is_quiet_on_a_healthy_host(name: str) -> None:
    common, series, trouble, healthy = CASES[name]
    assert phase(RULES[name], {**common, series: trouble}) == "firing"
    assert phase(RULES[name], {**common, series: healthy}) == "inactive"


def test_the_first_refusal_since_the_start_is_told() -> None:
    lab = RulesLab()
    series = PromQL().series(f'vigilhost_receiver_refused_total{{{HOST},receiver="ops"}}')
    lab.load(series, [((T0 + at) * 1000, float(at >= 60)) for at in range(0, 180, 10)])  # as AlertKeeper.readings does
    engine = Engine(lab, lab, NothingKnown())
    rule = RULES["AgentReceiverRefuses"]
    engine.load([RuleGroup("g", "f", (rule,), rule.place)], T0)
    phases = []
    for at in (50, 170):
        engine.evaluate("f;g", T0 + at)
        phases.append(engine.groups["f;g"].rules[0].phase)
    assert phases == ["inactive", "firing"]


def test_the_default_rules_are_read_without_a_remark() -> None:
    assert (FOUND.errors, FOUND.warnings) == ([], [])


def test_the_default_rules_ask_for_nothing_that_would_load_re2() -> None:
    code = (
        "import sys; from agent.rule_sets import load_rules; from alerting.options import RulesOptions;"
        "assert load_rules(RulesOptions(), '/nowhere').groups; sys.exit('re2' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)  # 3 MB


@pytest.mark.server("promtool")
@pytest.mark.parametrize("path", default_rule_files(), ids=lambda path: Path(path).stem)
def test_promtool_has_nothing_against_the_default_rules(path: str) -> None:
    assert promtool.check_rules(Path(path).read_text()) == []


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_default_rule_says_how_bad_it_is_what_it_means_and_how_to_look(name: str) -> None:
    rule = RULES[name]
    labels = {key: text.text for key, text in rule.labels}
    notes = {key: text.text for key, text in rule.annotations}
    assert labels["severity"] in {"critical", "warning", "info"}
    assert notes["summary"]
    assert re.search(r"Now: .*\{\{ \$value", notes["description"])
    query = re.fullmatch(r"vigilhost query '([^']+)'", notes["query"])
    assert query is not None
    PromQL().read(query[1])


@pytest.mark.parametrize("name", sorted(RULES))
def test_a_command_that_a_default_rule_names_is_one(name: str) -> None:
    for text in dict(RULES[name].annotations).values():
        for words in re.findall(r"`vigilhost ([a-z -]+)", text.text):
            command: click.Command | None = cli
            context = click.Context(cli)
            for word in words.split():
                if not isinstance(command, click.Group):
                    break  # an argument
                command = command.get_command(context, word)
                assert command is not None, words


@pytest.mark.parametrize("name", sorted(set(RULES) - {"HostRebooted"}))
def test_a_default_rule_does_not_flap_at_its_edge(name: str) -> None:
    assert RULES[name].keep_firing_for > 0


# What they compare with is another series, or 0 or 1, which is no matter of taste.
WITHOUT_THRESHOLD = {"BackupOverdue", "BackupShrank", "BackupWillNotFit", "BackupRestoreTooSlow", "BackupDrillOverdue",
                     "BackupNeverDrilled"}  # fmt: skip


@pytest.mark.parametrize("name", sorted(set(RULES) - WITHOUT_THRESHOLD))
def test_a_default_rule_takes_another_threshold(name: str) -> None:
    found = load_rules(RulesOptions(overrides={name: RuleOverride(threshold=4711)}), "/nowhere")
    assert (found.errors, found.warnings) == ([], [])
    (rule,) = (rule for _, rule in found.rules() if rule.name == name)
    assert rule.expression.text.count("4711") == 1


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("HostDiskFull", "100 * (1 - node_filesystem_avail_bytes"),
        ("HostNetworkErrors", "> 10) > 4711"),
        ("BackupNotVerified", "> 0) > 4711"),
        ("HostClockOff", "abs(node_timex_offset_seconds) > 4711"),
    ],
)
def test_the_threshold_is_the_number_that_the_rule_is_about(name: str, text: str) -> None:
    found = load_rules(RulesOptions(overrides={name: RuleOverride(threshold=4711)}), "/nowhere")
    (rule,) = (rule for _, rule in found.rules() if rule.name == name)
    assert text in rule.expression.text
    assert "== 4711" not in rule.expression.text


def test_a_graver_default_rule_keeps_the_milder_one_quiet() -> None:
    rules = default_inhibitions()
    names = {matcher.value for rule in rules for matcher in (*rule.source, *rule.target)}
    assert names <= RULES.keys()
    root = {"instance": "h", "mountpoint": "/"}
    inhibitor = Inhibitor(rules, [Alert(labels_of({"alertname": "HostDiskFullCritical", **root}))])
    assert inhibitor.source_of(labels_of({"alertname": "HostDiskFull", **root}))
    assert not inhibitor.source_of(labels_of({"alertname": "HostDiskFull", **root, "mountpoint": "/srv"}))
    assert AlertingOptions().policy().inhibit_rules == rules
    assert AlertingOptions(rules=RulesOptions(defaults=False)).policy().inhibit_rules == ()


def test_a_default_rule_is_adjusted_from_a_drop_in_and_rules_d_adds_to_them(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("groups: [{name: own, rules: [{alert: Mine, expr: up == 0}]}]")
    options = RulesOptions(
        overrides={"AgentMemoryHigh": RuleOverride(enabled=False), "HostTooHot": RuleOverride(for_=1)}
    )
    found = load_rules(options, str(tmp_path))
    rules = {rule.name: rule for _, rule in found.rules()}
    assert found.errors == []
    assert "Mine" in rules
    assert "AgentMemoryHigh" not in rules
    hot = rules["HostTooHot"]
    assert isinstance(hot, AlertRule)
    assert hot.hold == 1


def test_rules_d_stands_beside_the_configuration() -> None:
    assert rules_directory(RulesOptions(), ["/etc/v/vigilhost.yaml", "/etc/v/conf.d/a.yaml"]) == "/etc/v/rules.d"
    assert rules_directory(RulesOptions(), ["/etc/v/conf.d/a.yaml"]) == "/etc/v/rules.d"
    assert rules_directory(RulesOptions(), []) == "/etc/vigilhost/rules.d"
    assert rules_directory(RulesOptions(directory="/srv/rules"), []) == "/srv/rules"
