"""Templates give what Prometheus gives: every row is also put to promtool."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alerting.templates.expander import Helpers, Template, alert_data
from alerting.templates.functions import FUNCTIONS
from alerting.templates.values import TemplateError
from tests.servers import programs, promtool

LABELS = (("instance", "db1.example.com:9100"), ("job", "node"), ("mount", "/var/lib & <x>"))
EXTERNAL = "http://example.com:9090/prefix"
PAYLOAD = {"up": [((("__name__", "up"), ("instance", "b:1"), ("job", "x")), 1.0),
                  ((("__name__", "up"), ("instance", "a:2"), ("job", "x")), 0.0)]}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A template, the value of its alert, and what comes out."""

    template: str
    expected: str
    value: float = 1234.5678


ROWS = [
    # what is said, and how labels and values show
    Row("plain text, 100% as it stands", "plain text, 100% as it stands"),
    Row("{{ $labels.instance }} is down", "db1.example.com:9100 is down"),
    Row("{{ $labels.nosuch }}|", "|"),
    Row("{{ .Labels.job }}", "node"),
    Row("{{ $labels }}", "map[instance:db1.example.com:9100 job:node mount:/var/lib & <x>]"),
    Row("{{ $value }}", "1234.5678"),
    Row("{{ .Value }}", "1e-05", 1e-5),
    Row("{{ $value }}", "1e+06", 1e6),
    Row("{{ $value }}", "999999", 999999),
    Row("{{ $value }}", "1.234567891e+09", 1234567891),
    Row("{{ $value }}", "0.1", 0.1),
    Row("{{ $value }}", "+Inf", float("inf")),
    Row("{{ $value }}", "-0.25", -0.25),
    Row("{{ $externalURL }}", EXTERNAL),
    Row("{{ $externalLabels.region }} {{ .ExternalLabels }}", "eu map[region:eu]"),
    # printf
    Row('{{ printf "%.2f" $value }}', "1234.57"),
    Row('{{ $value | printf "%.0f" }}', "1235"),
    Row('{{ printf "%.3g|%g|%e|%8.1f|%-8.1f|%08.1f|%+.1f" $value $value $value $value $value $value $value }}',
        "1.23e+03|1234.5678|1.234568e+03|  1234.6|1234.6  |001234.6|+1234.6"),
    Row('{{ printf "%d" $value }}', "%!d(float64=1234.5678)"),
    Row('{{ printf "%s" $value }}', "%!s(float64=1234.5678)"),
    Row('{{ printf "%v %s %q %d %5d %x %t" $labels.job $labels.job $labels.job 42 42 255 true }}',
        'node node "node" 42    42 ff true'),
    Row('{{ printf "%d %d" 1 }}', "1 %!d(MISSING)"),
    Row('{{ printf "x" 1 "a" }}', "x%!(EXTRA int=1, string=a)"),
    Row('{{ printf "%[2]s %[1]s" "a" "b" }}', "b a"),
    Row('{{ printf "%*d|%-4d|%04d" 5 1 2 3 }}', "    1|2   |0003"),
    Row('{{ printf "%5.1f%%" 12.34 }}', " 12.3%"),
    Row('{{ printf "%c %U %o %b %T %T" 65 65 8 5 1.5 "x" }}', "A U+0041 10 101 float64 string"),
    Row('{{ printf "%.2s|%6s|%-6s|%x" "abcdef" "ab" "ab" "hi" }}', "ab|    ab|ab    |6869"),
    Row('{{ printf "%v" $labels.nosuch }}{{ printf "%q" "a\\"b\\n" }}', '"a\\"b\\n"'),
    Row("{{ print 1 2 \"a\" \"b\" 3 4 }}|{{ println 1 \"a\" }}|", "1 2ab3 4|1 a\n|"),
    # numbers for people
    Row("{{ $value | humanize }}", "1.235k"),
    Row("{{ $value | humanize }}", "12.35m", 0.012345),
    Row("{{ $value | humanize }}", "0", 0.0),
    Row("{{ $value | humanize }}", "1.5Y", 1.5e24),
    Row("{{ $value | humanize }}", "-2.5G", -2.5e9),
    Row("{{ $value | humanize1024 }}", "1.206ki"),
    Row("{{ $value | humanize1024 }}", "8Gi", 8 * 2**30),
    Row("{{ $value | humanize1024 }}", "0.5", 0.5),
    Row("{{ $value | humanizeDuration }}", "20m 34s"),
    Row("{{ $value | humanizeDuration }}", "1d 1h 1m 1s", 90061),
    Row("{{ $value | humanizeDuration }}", "12.35ms", 0.012345),
    Row("{{ $value | humanizeDuration }}", "-59.5s", -59.5),
    Row("{{ $value | humanizeDuration }}", "0s", 0.0),
    Row("{{ $value | humanizePercentage }}", "87.65%", 0.87654),
    Row("{{ $value | humanizeTimestamp }}", "2023-11-14 22:13:20.5 +0000 UTC", 1700000000.5),
    Row("{{ $value | toTime }}", "2023-11-14 22:13:20 +0000 UTC", 1700000000),
    Row('{{ ($value | toTime).Format "2006-01-02T15:04:05Z07:00, Mon Jan 2 3:04PM" }}',
        "2023-11-14T22:13:20Z, Tue Nov 14 10:13PM", 1700000000),
    Row("{{ ($value | toTime).Year }} {{ ($value | toTime).Unix }}", "2023 1700000000", 1700000000),
    Row('{{ humanize "1048576" }} {{ humanize 12 }}', "1.049M 12"),
    Row('{{ parseDuration "1h30m" | humanizeDuration }} {{ parseDuration "250ms" }}', "1h 30m 0s 0.25"),
    # texts
    Row("{{ $labels.job | toUpper | toLower | title }}", "Node"),
    Row('{{ "it\'s a low_disk-space 2nd" | title }}', "It'S A Low_disk-Space 2nd"),
    Row("{{ stripPort $labels.instance }} {{ stripDomain $labels.instance }}", "db1.example.com db1:9100"),
    Row('{{ stripPort "[::1]:80" }} {{ stripDomain "10.0.0.1:80" }} {{ stripPort "nohost" }}',
        "::1 10.0.0.1:80 nohost"),
    Row('{{ match "db[0-9]" $labels.instance }} {{ match "^x" $labels.instance }}', "true false"),
    Row('{{ reReplaceAll "(.*)\\\\.example.*" "<$1>" $labels.instance }}', "<db1>"),
    Row('{{ reReplaceAll "(?P<h>[a-z]+)([0-9])" "${2}${h}$2x$$" "db1" }}', "1db$"),
    Row('{{ reReplaceAll "x*" "-" "axb" }}', "-a-b-"),
    Row("{{ $labels.mount | html }} {{ $labels.mount | urlquery }}",
        "/var/lib &amp; &lt;x&gt; %2Fvar%2Flib+%26+%3Cx%3E"),
    Row('{{ graphLink "up == 0" }} {{ tableLink "up" }}',
        "/graph?g0.expr=up+%3D%3D+0&g0.tab=0 /graph?g0.expr=up&g0.tab=1"),
    Row('{{ safeHtml "<b>" }} {{ js "a\'b<" }}', "<b> a\\'b\\u003C"),
    Row('{{ len $labels.job }} {{ len $labels }} {{ index $labels "job" }} {{ slice $labels.job 1 3 }}', "4 3 node od"),
    # decisions
    Row("{{ if gt $value 1000.0 }}high{{ else }}low{{ end }}", "high"),
    Row("{{ if lt $value 1.0 }}a{{ else if ge $value 1234.5678 }}b{{ else }}c{{ end }}", "b"),
    Row('{{ if eq $labels.job "x" "node" }}yes{{ end }}', "yes"),
    Row('{{ if ne $labels.job "x" }}{{ if not false }}both{{ end }}{{ end }}', "both"),
    Row('{{ and 1 0 "never" }} {{ or 0 "" "last" }} {{ le 1 1 }} {{ lt "a" "b" }}', "0 last true true"),
    Row("{{ if and (gt $value 1.0) (lt $value 2000.0) }}in{{ end }}", "in"),
    Row("{{ if $labels.nosuch }}a{{ else }}b{{ end }}{{ if $value }}c{{ end }}", "bc"),
    Row("{{ with $labels.job }}[{{ . }}]{{ end }}{{ with $labels.nosuch }}no{{ else }}none{{ end }}", "[node]none"),
    Row("{{ with $x := 5 }}{{ $x }}{{ end }}{{ with $labels }}{{ .job }} {{ $.Value }}{{ end }}", "5node 1234.5678"),
    Row("{{ range $k, $v := $labels }}{{ $k }}={{ $v }},{{ end }}",
        "instance=db1.example.com:9100,job=node,mount=/var/lib & <x>,"),

           Row("{{ range $k, $v := $labels }}{{ if eq $k \"mount\" }}{{ break }}{{ end }}{{ if eq $k \"instance\" }}"
        "{{ continue }}{{ end }}{{ $k }}{{ end }}", "job"),
    Row("{{ range $externalLabels }}{{ . }}{{ else }}none{{ end }}", "eu"),
    Row("{{ $x := 1 }}{{ if true }}{{ $x = 2 }}{{ $y := 3 }}{{ $y }}{{ end }}{{ $x }}", "32"),
    Row("{{ $x := 1 }}{{ if true }}{{ $x := 2 }}{{ end }}{{ $x }}", "1"),
    # shapes
    Row("a {{- /* a remark */ -}} b {{- 3 -}} c", "ab3c"),
    Row("a {{/* a remark */}} b\n  {{- if true }}\n  x{{ end -}}\n  y", "a  b\n  xy"),
    Row('{{ "quoted \\"text\\" \\u00e9\\t|" }}{{ `raw \\n` }}', 'quoted "text" é\t|raw \\n'),
    Row("{{ 0x1F }} {{ 1_000 }} {{ 'a' }} {{ 1e3 }} {{ -5 }} {{ 017 }} {{ .5 }}", "31 1000 97 1000 -5 15 0.5"),
    Row("{{ define \"t\" }}<{{ . }}>{{ end }}{{ template \"t\" $labels.job }}{{ template \"t\" 3 }}", "<node><3>"),
    Row("{{ block \"b\" $labels }}{{ .job }}{{ end }}", "node"),
    Row('{{ (printf "%s-%s" "a" "b") | toUpper }} {{ printf "%s" (toUpper "x") }}', "A-B X"),
    Row('{{ ((args 1 "b").arg1) }} {{ (args 1).arg0 }}', "b 1"),
    # queries
    Row('{{ query "sort(up)" | first | value }} {{ query "sort(up)" | first | label "instance" }}', "0 a:2"),
    Row('{{ range query "up" | sortByLabel "instance" }}{{ .Labels.instance }}={{ .Value }} {{ end }}', "a:2=0 b:1=1 "),
    Row('{{ with query "nosuch" }}{{ . | first | value }}{{ else }}no data{{ end }}', "no data"),
    Row('{{ len (query "up") }} {{ (query "up" | first).Labels.job }} {{ (index (query "sort(up)") 1).Value }}',
        "2 x 1"),
    Row('{{ with printf "up{instance=\'%s\'}" "b:1" | query }}{{ . | first | value | humanize }}{{ end }}', "1"),
    Row("{{ query \"up\" | first | strvalue }}|", "|"),
]  # fmt: skip

FAILING = [
    "{{ .Nosuch }}",
    "{{ humanize \"x\" }}",
    "{{ if gt $value 5 }}x{{ end }}",
    "{{ eq 1 1.0 }}",
    "{{ lt true false }}",
    "{{ toUpper 5 }}",
    "{{ toUpper }}",
    "{{ index $labels 5 }}",
    "{{ slice $labels.job 3 2 }}",
    "{{ len 5 }}",
    "{{ query \"nosuch\" | first }}",
    "{{ reReplaceAll \"(\" \"x\" \"y\" }}",
    "{{ match \"(\" \"x\" }}",
    "{{ template \"nosuch\" }}",
    "{{ $labels.job.x }}",
    "{{ range $value }}{{ end }}",
    "{{ parseDuration \"1x\" }}",
    "{{ $value | toTime }}{{ toTime 1e30 }}",
    "{{ define \"t\" }}{{ template \"t\" }}{{ end }}{{ template \"t\" }}",
    "{{ nil }}",
    "{{ $labels.job 3 }}",
]  # fmt: skip

UNREADABLE = [
    ("{{ $value", "1:1: '{{' without an end"),
    ("a\n{{ nosuch 1 }}", "2:4: function 'nosuch' not defined"),
    ("{{ $nosuch }}", "1:4: undefined variable '$nosuch'"),
    ("{{ if $value }}x", "1:4: 'if' without its '{{end}}'"),
    ("x{{ end }}", "1:5: 'end' without the block it belongs to"),
    ("{{ else }}", "1:4: 'else' without the block it belongs to"),
    ("{{ if true }}{{ else }}{{ else }}{{ end }}", "1:27: found 'else'; expected '{{end}}'"),
    ("{{ }}", "1:6: missing value for action"),
    ("{{ 3 | 4 }}", "1:8: a constant takes no argument"),
    ("{{ \"open }}", "1:4: a quoted text without an end"),
    ("{{ printf \"%s\"$value }}", "1:15: found '$value' in action; a space or '|' would be right"),
    ("{{ (1 }}", "1:7: found '}}' in parentheses; expected a value"),
    ("{{/* open", "1:1: comment without an end"),
    ("{{ break }}", "1:4: 'break' outside of a range"),
    ("{{ 1x }}", "1:4: '1x' is not a number"),
    ("{{ \"\\z\" }}", "1:4: '\\\\z' is not an escape"),
    ("{{ if $x := 1 }}{{ end }}{{ $x }}", "1:29: undefined variable '$x'"),
    ("{{ \"a\".b }}", "1:7: found 'b' after a constant"),
    ("{{ template x }}", "1:13: found 'x'; expected the template's name in quotes"),
    ("{{ # }}", "1:4: '#' means nothing inside an action"),
]  # fmt: skip


def expand(row: Row) -> str:
    def query(expression: str) -> list[tuple[tuple[tuple[str, str], ...], float]]:
        if expression.startswith("up{"):
            return PAYLOAD["up"][:1]
        if expression == "sort(up)":
            return sorted(PAYLOAD["up"], key=lambda sample: sample[1])
        return PAYLOAD.get(expression, [])

    data = alert_data(LABELS, row.value, (("region", "eu"),), EXTERNAL)
    return Template(row.template).expand_or_say(data, Helpers(query, EXTERNAL))[0]


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.template[:60])
def test_a_template_renders(row: Row) -> None:
    assert expand(row) == row.expected


def _promtool(rows: list[Row]) -> list[str]:
    """What promtool objects to when it is told that each row renders as expected."""
    labels = ",".join(f"{name}={json.dumps(value)}" for name, value in LABELS)
    rules = [{"alert": f"a{at}", "expr": f'sum by (instance, job, mount) (m{{id="{at}"}})',
              "annotations": {"text": row.template}} for at, row in enumerate(rows)]  # fmt: skip
    shown = {float("inf"): "Inf"}
    series = [{"series": f'm{{id="{at}",{labels}}}', "values": shown.get(row.value, repr(row.value))}
              for at, row in enumerate(rows)]  # fmt: skip
    series += [
        {"series": 'up{instance="b:1",job="x"}', "values": "1"},
        {"series": 'up{instance="a:2",job="x"}', "values": "0"},
    ]
    tests = [
        {
            "interval": "1m",
            "input_series": [series[at], *series[-2:]],
            "external_labels": {"region": "eu"},
            "external_url": EXTERNAL,
            "alert_rule_test": [
                {"eval_time": "0m", "alertname": f"a{at}", "exp_alerts": [
                    {"exp_labels": dict(LABELS), "exp_annotations": {"text": row.expected}}]}
            ],
        }
        for at, row in enumerate(rows)
    ]  # fmt: skip
    return promtool.test_rules(
        json.dumps({"groups": [{"name": "g", "rules": rules}]}),
        json.dumps({"rule_files": ["rules.yml"], "evaluation_interval": "1m", "tests": tests}),
    )


def test_promtool_renders_every_row_alike() -> None:
    programs.need("promtool")
    assert len(ROWS) >= 80
    assert _promtool(ROWS) == []


def test_the_agents_address_is_there_for_links() -> None:
    # promtool has no address of its own in unit tests, so these functions cannot be put to it
    assert expand(Row("{{ externalURL }} {{ pathPrefix }}", "")) == f"{EXTERNAL} /prefix"


@pytest.mark.parametrize("template", FAILING)
def test_a_template_that_cannot_be_carried_out_says_so_in_its_place(template: str) -> None:
    assert expand(Row(template, "")).startswith("<error expanding template: 1:")


def test_promtool_fails_where_we_fail() -> None:
    programs.need("promtool")
    for template in FAILING:
        said = " ".join(_promtool([Row(template, "another text")]))
        assert "error expanding template" in said or "panic" in said, (template, said)


@pytest.mark.parametrize(("template", "message"), UNREADABLE)
def test_an_unreadable_template_is_refused_with_its_place(template: str, message: str) -> None:
    with pytest.raises(TemplateError, match=re.escape(message)):
        Template(template)


def test_promtool_refuses_what_we_refuse() -> None:
    programs.need("promtool")
    for template, _ in UNREADABLE:
        rules = {"groups": [{"name": "g", "rules": [{"alert": "a", "expr": "up", "annotations": {"text": template}}]}]}
        assert promtool.check_rules(json.dumps(rules)), template


def test_a_template_cannot_run_for_ever_or_fill_memory() -> None:
    data = alert_data((), 0.0)
    wide = "{{ range $i := 100000 }}" * 2 + "x" + "{{ end }}" * 2
    assert "more than 200000 steps" in Template(wide).expand_or_say(data)[0]
    long = '{{ $x := printf "%500000s" "a" }}{{ print $x $x $x }}'
    assert "more than 1000000 characters" in Template(long).expand_or_say(data)[0]
    with pytest.raises(TemplateError, match="more than 100 blocks or parentheses"):
        Template("{{" + "(" * 5000 + "1" + ")" * 5000 + "}}")


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_a_function_given_anything_gives_a_value_or_a_template_error(name: str) -> None:
    data = alert_data(LABELS, 1.0)
    words = ["1", "-5", "1.5", "1e300", '"x"', '""', '"%d"', '"("', "true", "$labels", "$value", '(query "up")',
             "(args 1)", "(toTime 5)", '(query "up" | first)', '(stringSlice "a")', "(toDuration 1.5)"]  # fmt: skip
    helpers = Helpers(lambda expression: PAYLOAD.get(expression, []), now=5.0)
    for arguments in [(), *product(words), *product(words, words)]:
        try:
            Template(f"{{{{ {name} {' '.join(arguments)} }}}}").expand(data, helpers)
        except TemplateError:
            continue


def test_methods_given_anything_give_a_template_error() -> None:
    data = alert_data(LABELS, 1.0)
    for call in ("(toTime 5).Format 5", "(toTime 5).Format", "(toTime 5).Unix 1"):
        assert "error calling" in Template(f"{{{{ {call} }}}}").expand_or_say(data)[0]


def test_now_is_the_moment_of_the_evaluation() -> None:
    assert Template("{{ now | toTime }}").expand(alert_data((), 0), Helpers(now=60)) == "1970-01-01 00:01:00 +0000 UTC"


@given(st.text("{}$.|()\"`'-/* :=,%ifendraghw%v[]123x\n\\", max_size=60))
def test_any_text_gives_a_text_or_a_template_error(text: str) -> None:
    try:
        Template("{{" + text).expand(alert_data(LABELS, 1.0))
    except TemplateError:
        pass
