from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
    SummaryMetricFamily,
    UntypedMetricFamily,
)
from prometheus_client.exposition import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import CollectorRegistry

from collectors.prom_text import Family, PromTextError, parse_prom_text

Series = tuple[str, tuple[tuple[str, str], ...]]


@pytest.mark.parametrize(
    ("line", "name", "labels", "value", "why"),
    [
        ("up 1", "up", {}, 1.0, "the plainest line"),
        ("up{} 1", "up", {}, 1.0, "empty braces are no labels"),
        ('a:b{x="1",y="2"} 2.5e3', "a:b", {"x": "1", "y": "2"}, 2500.0, "colons in names, exponents in values"),
        ('a { x = "1" , } \t 3', "a", {"x": "1"}, 3.0, "spaces, tabs and a last comma do no harm"),
        ('a{x="} 5"} 6', "a", {"x": "} 5"}, 6.0, "a brace within quotes ends nothing"),
        (r'a{x="q\"b\\n\nz"} 7', "a", {"x": 'q"b\\n\nz'}, 7.0, "the three escapes are undone, once"),
        (r'a{x="C:\dir"} 7', "a", {"x": "C:\\dir"}, 7.0, "an unknown escape stays"),
        ('a{x=""} 8', "a", {}, 8.0, "an empty label is no label"),
        ("a +Inf", "a", {}, math.inf, "infinity has a sign"),
        ("a -Inf 1395066363000", "a", {}, -math.inf, "a timestamp may follow"),
        ('a{x="1"} 9 # {trace_id="k"} 0.3', "a", {"x": "1"}, 9.0, "an exemplar is passed over"),
        ("\ta 10", "a", {}, 10.0, "a line may be indented"),
    ],
)
def test_a_line_is_understood(line: str, name: str, labels: dict[str, str], value: float, why: str) -> None:
    (family,) = parse_prom_text(f"{line}\n".encode())
    (sample,) = family.samples
    assert sample.name == name
    assert dict(zip(sample.label_names, sample.label_values, strict=True)) == labels, why
    assert sample.value == value, why


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a 1\nb", "line 2: does not end with a line feed; the text may be cut short"),
        ("a 1\n\nb one\n", "line 3: 'one' is not a number"),
        ("a\n", "line 1: 'a' is not a sample"),
        ("a 1_000\n", "line 1: 'a 1_000' is not a sample"),
        ("a ١\n", "line 1: 'a ١' is not a sample"),
        ('a{x="1" 1\n', "is not a sample"),
        ("a{x=1} 1\n", "line 1: 'x=1' is not a label"),
        ('a{x="1"y="2"} 1\n', "is not a label"),
        ('a{x="1",x="2"} 1\n', "line 1: label x is given twice"),
        ('a{__name__="b"} 1\n', "reserved for the metric's name"),
        ("a 1 2 3\n", "is not a sample"),
        ("a 1\r\n", "is not a sample"),
        ("# TYPE a gauge\n# TYPE a gauge\n", "line 2: second TYPE line for a"),
        ("a 1\n# TYPE a gauge\n", "line 2: TYPE of a comes after its samples"),
        ("# TYPE a speed\n", "line 1: 'speed' is not a type of metric"),
        ("# HELP a x\n# HELP a y\n", "line 2: second HELP line for a"),
        ("# TYPE a-b gauge\n", "'a-b' after TYPE is not a metric name"),
        ("# TYPE h histogram\nh_bucket 1\n", "line 2: h_bucket has no label le"),
        ('# TYPE h histogram\nh_bucket{le="x"} 1\n', "le='x' of h_bucket is not a number"),
        ("# TYPE s summary\ns 1\n", "line 2: s has no label quantile"),
        ("a 1\nb \xff\n", "line 2: not valid UTF-8"),
    ],
)
def test_a_bad_line_is_refused_with_its_number(text: str, message: str) -> None:
    data = text.encode("latin-1") if "\xff" in text else text.encode()
    with pytest.raises(PromTextError) as error:
        parse_prom_text(data)
    assert message in str(error.value)


def test_the_number_of_samples_is_bounded() -> None:
    assert len(parse_prom_text(b"a 1\nb 1\n", most_samples=2)) == 2
    with pytest.raises(PromTextError, match="line 3: more than 2 samples"):
        parse_prom_text(b"a 1\nb 1\nc 1\n", most_samples=2)


def test_families_have_type_help_and_all_their_parts() -> None:
    h, s, other = parse_prom_text(
        b"# HELP h How long\\nit took\\\\.\n# TYPE h histogram\n"
        b'h_bucket{le="1"} 2\nh_bucket{le="+Inf"} 3\nh_sum 4\nh_count 3\n'
        b'# TYPE s summary\ns{quantile="0.5"} 1\ns_sum 4\ns_count 3\n'
        b"s_total 5\n# a comment\n#\n"
    )
    assert (h.name, h.type, h.help) == ("h", "histogram", "How long\nit took\\.")
    assert [sample.name for sample in h.samples] == ["h_bucket", "h_bucket", "h_sum", "h_count"]
    assert (s.type, len(s.samples)) == ("summary", 3)
    assert (other.name, other.type, other.help) == ("s_total", "untyped", None)


def test_openmetrics_counters_keep_the_names_prometheus_stores() -> None:
    families = parse_prom_text(
        b"# TYPE a counter\n# HELP a Things.\na_total 5 1700000000.25\na_created 1.6e9\n"
        b'# TYPE b info\nb_info{version="1"} 1\n# TYPE c unknown\nc 1\n# EOF\nthis is not read\n'
    )
    assert [(family.name, family.type, family.help) for family in families] == [
        ("a_total", "counter", "Things."),
        ("a_created", "gauge", "Things."),
        ("b_info", "gauge", None),
        ("c", "untyped", None),
    ]
    assert families[0].samples[0].has_timestamp


def test_a_family_whose_lines_stand_apart_is_one() -> None:
    a, b = parse_prom_text(b'a{x="1"} 1\nb 1\na{x="2"} 2\n')
    assert (len(a.samples), len(b.samples)) == (2, 1)


NAMES = st.from_regex(r"[a-z_:][a-z0-9_:]{0,8}", fullmatch=True).map(lambda name: f"m{name}x")
LABELS = st.dictionaries(
    st.sampled_from(["x", "y", "z"]), st.text(st.characters(codec="utf-8"), min_size=1, max_size=10), max_size=3
)
FLOATS = st.floats()


@st.composite
def metrics(draw: st.DrawFn, name: str) -> Metric:
    kind = draw(st.sampled_from(["counter", "gauge", "untyped", "histogram", "summary"]))
    help_text = draw(st.text(st.characters(codec="utf-8"), max_size=12))
    samples = draw(st.dictionaries(LABELS.map(lambda d: tuple(sorted(d.items()))), FLOATS, max_size=3))
    label_names = sorted({key for labels in samples for key, _ in labels})
    simple = {"counter": CounterMetricFamily, "gauge": GaugeMetricFamily, "untyped": UntypedMetricFamily}
    if kind in simple:
        family = simple[kind](name, help_text, labels=label_names)
        for labels, value in samples.items():
            family.add_metric([dict(labels).get(key, "") for key in label_names], value)
        return family  # type: ignore[no-any-return]
    if kind == "histogram":
        histogram = HistogramMetricFamily(name, help_text)
        histogram.add_metric([], buckets=[("0.5", 1.0), ("+Inf", 2.0)], sum_value=draw(FLOATS))
        return histogram
    summary = SummaryMetricFamily(name, help_text)
    summary.add_metric([], count_value=3, sum_value=draw(FLOATS))
    return summary


class Source:
    def __init__(self, found: list[Metric]) -> None:
        self.found = found

    def collect(self) -> Iterator[Metric]:
        yield from self.found


@given(st.data())
def test_agrees_with_prometheus_client_on_what_prometheus_client_writes(data: st.DataObject) -> None:
    names = data.draw(st.lists(NAMES, max_size=4, unique_by=lambda name: name.replace("_", "")))
    registry = CollectorRegistry()
    registry.register(Source([data.draw(metrics(name)) for name in names]))  # type: ignore[arg-type]
    text = generate_latest(registry)
    assert same(series_of(parse_prom_text(text)), series_by_the_oracle(text))


@given(st.binary(max_size=200))
def test_any_bytes_give_families_or_an_error_with_a_line(noise: bytes) -> None:
    text = b'# TYPE a gauge\na{x="1"} 1\n' + noise
    try:
        families = parse_prom_text(text)
    except PromTextError as error:
        said = str(error)
    else:
        assert families[0].samples[0].value == 1.0
        return
    assert said.startswith("line ")


def series_of(families: list[Family]) -> dict[Series, float]:
    return {
        (sample.name, tuple(zip(sample.label_names, sample.label_values, strict=True))): sample.value
        for family in families
        for sample in family.samples
    }


def series_by_the_oracle(text: bytes) -> dict[Series, float]:
    return {
        (sample.name, tuple(sorted((key, value) for key, value in sample.labels.items() if value))): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def same(ours: dict[Series, float], theirs: dict[Series, float]) -> bool:
    return ours.keys() == theirs.keys() and all(
        value == theirs[key] or (math.isnan(value) and math.isnan(theirs[key])) for key, value in ours.items()
    )
