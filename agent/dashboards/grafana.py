"""The dashboard as Grafana's JSON, of the schema that Grafana 11 publishes; later ones migrate it themselves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from agent.dashboards.panels import Influx, Panel, Prom, Row
from agent.dashboards.queries import DIALECTS, Dialect
from agent.dashboards.thresholds import Drawn, Thresholds

SCHEMA_VERSION: Final = 39
_RANGES: Final = ("1h", "6h", "24h", "7d")
_HEIGHT, _STAT_HEIGHT, _COLUMNS = 8, 4, 24
_BUCKET_SUFFIXES: Final = ("", "_5m", "_1h", "_1d")


def dashboard(source: str, rows: Sequence[Row], thresholds: Thresholds, *, bucket: str = "hosts") -> dict[str, Any]:
    """The whole document. `source`: a name in DIALECTS; `bucket` matters to Flux alone."""
    dialect = DIALECTS[source]
    uid = f"vigilhost-{source}"
    return {
        "uid": uid,
        "title": f"Vigilhost: a host ({source})",
        "description": "Made by `vigilhost dashboards export grafana`.",
        "tags": ["vigilhost"],
        "timezone": "browser",
        "editable": True,
        "graphTooltip": 1,
        "schemaVersion": SCHEMA_VERSION,
        "version": 1,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "timepicker": {
            "refresh_intervals": ["10s", "30s", "1m", "5m"],
            "quick_ranges": [{"display": f"Last {each}", "from": f"now-{each}", "to": "now"} for each in _RANGES],
        },
        "links": [_range_link(uid, each) for each in _RANGES],
        "templating": {"list": _variables(source, dialect, bucket)},
        "annotations": {"list": []},
        "panels": list(_panels(dialect, rows, thresholds)),
    }


def _range_link(uid: str, span: str) -> dict[str, Any]:
    return {
        "title": span, "type": "link", "icon": "clock-nine", "tooltip": f"The last {span}",
        "url": f"/d/{uid}?from=now-{span}&to=now", "tags": [], "asDropdown": False, "targetBlank": False,
        "includeVars": True, "keepTime": False,
    }  # fmt: skip


def _variables(source: str, dialect: Dialect, bucket: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": "datasource", "type": "datasource", "label": "Data source", "query": dialect.plugin, "refresh": 1,
         "hide": 0, "multi": False, "includeAll": False, "regex": "", "skipUrlSync": False},
    ]  # fmt: skip
    if source == "flux":
        names = [bucket + suffix for suffix in _BUCKET_SUFFIXES]
        options = [{"text": name, "value": name, "selected": name == bucket} for name in names]
        found.append({"name": "bucket", "type": "custom", "label": "Bucket", "query": ",".join(names), "hide": 0,
                      "multi": False, "includeAll": False, "skipUrlSync": False, "options": options,
                      "current": options[0]})  # fmt: skip
    found.append({"name": "host", "type": "query", "label": "Host", "datasource": _source(dialect), "refresh": 2,
                  "sort": 1, "hide": 0, "multi": False, "includeAll": False, "regex": "", "skipUrlSync": False,
                  "query": dialect.hosts()})  # fmt: skip
    return found


def _source(dialect: Dialect) -> dict[str, str]:
    return {"type": dialect.plugin, "uid": "${datasource}"}


def _panels(dialect: Dialect, rows: Sequence[Row], thresholds: Thresholds) -> Iterator[dict[str, Any]]:
    """Rows one below the other, their panels from left to right."""
    id, y = 0, 0
    for row in rows:
        id += 1
        yield {"id": id, "type": "row", "title": row.title, "collapsed": False, "panels": [],
               "gridPos": {"h": 1, "w": _COLUMNS, "x": 0, "y": y}}  # fmt: skip
        x, y = 0, y + 1
        height = 0
        for panel in row.panels:
            if x + panel.width > _COLUMNS:
                x, y = 0, y + height
            height = _STAT_HEIGHT if panel.kind == "stat" else _HEIGHT
            id += 1
            place = {"h": height, "w": panel.width, "x": x, "y": y}
            yield _panel(id, place, panel, dialect, thresholds.drawn(panel.lines))
            x += panel.width
        y += height


def _panel(id: int, place: dict[str, int], panel: Panel, dialect: Dialect, lines: Sequence[Drawn]) -> dict[str, Any]:
    targets = [
        {"refId": chr(ord("A") + at), "datasource": _source(dialect), **target}
        for at, target in enumerate(dialect.targets(panel))
    ]
    found = {
        "id": id, "type": panel.kind, "title": panel.title, "description": panel.help, "gridPos": place,
        "datasource": _source(dialect), "targets": targets, "transparent": False,
        "fieldConfig": {"defaults": _defaults(panel, lines), "overrides": _overrides(panel, dialect)},
        "options": _options(panel),
    }  # fmt: skip
    if panel.kind == "table":
        columns = {"alertname": 0, "alertstate": 1, "severity": 2, "mountpoint": 3, "device": 4}
        hidden = dict.fromkeys(("Time", "Value", "__name__", "job"), True)
        found["transformations"] = [
            {"id": "organize", "options": {"excludeByName": hidden, "indexByName": columns, "renameByName": {}}}
        ]
    return found


def _defaults(panel: Panel, lines: Sequence[Drawn]) -> dict[str, Any]:
    steps: list[dict[str, Any]] = [{"color": "green", "value": None}]
    steps += [{"color": line.colour, "value": line.value} for line in lines]
    found: dict[str, Any] = {
        "unit": panel.unit,
        "thresholds": {"mode": "absolute", "steps": steps},
        "color": {"mode": "thresholds" if panel.kind == "stat" else "palette-classic"},
    }
    if panel.unit == "percent" and panel.kind == "timeseries":
        found["decimals"] = 1
    if panel.kind == "timeseries":
        found["min"] = 0
    if panel.top is not None:
        found["max"] = panel.top
    if panel.kind == "timeseries":
        found["custom"] = {
            "drawStyle": "line", "lineInterpolation": "linear", "lineWidth": 1, "showPoints": "never",
            "fillOpacity": 40 if panel.is_stacked else 8, "spanNulls": False, "axisPlacement": "auto",
            "stacking": {"mode": "normal" if panel.is_stacked else "none", "group": "A"},
            "thresholdsStyle": {"mode": "line" if lines else "off"},
        }  # fmt: skip
    return found


def _overrides(panel: Panel, dialect: Dialect) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    asked: Sequence[Prom | Influx] = panel.influx if dialect.plugin == "influxdb" else panel.prom
    for at, query in enumerate(asked):
        name = dialect.name_of(query.legend)
        properties = [{"id": "displayName", "value": name}] if name is not None else []
        if query.legend in panel.dashed:
            properties += _LIMIT
        if properties:
            matcher = {"id": "byFrameRefID", "options": chr(ord("A") + at)}
            found.append({"matcher": matcher, "properties": properties})
    return found


_LIMIT: Final[list[dict[str, Any]]] = [
    {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 8]}},
    {"id": "custom.fillOpacity", "value": 0},
    {"id": "color", "value": {"mode": "fixed", "fixedColor": "text"}},
]


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        return {
            "colorMode": "value", "graphMode": "area", "justifyMode": "auto", "textMode": "value",
            "orientation": "auto", "wideLayout": True, "showPercentChange": False,
            "percentChangeColorMode": "standard",
            "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        }  # fmt: skip
    if panel.kind == "table":
        return {"showHeader": True, "cellHeight": "sm", "frameIndex": 0,
                "footer": {"show": False, "countRows": False, "reducer": ["sum"]}}  # fmt: skip
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
