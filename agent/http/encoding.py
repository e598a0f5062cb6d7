"""Query results as Prometheus' JSON: written series by series, so that no single call holds the interpreter long."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal
from math import inf, isfinite
from typing import Any, Final

import msgspec

from agent.core.labels import Labels
from agent.core.query import Result
from agent.http.refusals import clean
from agent.http.times import seconds_text

PIECE_BYTES: Final = 64 * 1024
_encode = msgspec.json.Encoder().encode


def number(value: float) -> str:
    """A float as Prometheus shows it in vectors and matrices: the shortest exact form, exponents only far out."""
    if value == 0 or 1e-6 <= abs(value) < 1e21:
        return plain_number(value)
    return repr(value).removesuffix(".0") if isfinite(value) else _special(value)


def plain_number(value: float) -> str:
    """A float as Prometheus shows it in scalars: never with an exponent."""
    text = repr(value)
    if text.endswith(".0"):
        return text[:-2]
    if "e" in text:
        return format(Decimal(text), "f")
    return text if isfinite(value) else _special(value)


def _special(value: float) -> str:
    if value == inf:
        return "+Inf"
    return "-Inf" if value == -inf else "NaN"


def labels_json(labels: Labels) -> str:
    """The label set as a JSON object."""
    return to_json(dict(labels))


def to_json(value: Any) -> str:
    """JSON text; what is no UTF-8 (bytes of a hostile name) becomes a question mark."""
    try:
        return _encode(value).decode()
    except UnicodeEncodeError:
        return _encode(_cleaned(value)).decode()


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, dict):
        return {clean(key): _cleaned(item) for key, item in value.items()}
    return [_cleaned(item) for item in value] if isinstance(value, list | tuple) else value


def success(pieces: Iterator[str], warnings: Sequence[str] = (), infos: Sequence[str] = ()) -> list[bytes]:
    """A whole answer around the JSON text of `data`, in pieces of some 64 KiB."""
    return gathered(_around(pieces, warnings, infos))


def _around(pieces: Iterator[str], warnings: Sequence[str], infos: Sequence[str]) -> Iterator[str]:
    yield '{"status":"success","data":'
    yield from pieces
    if warnings:
        yield f',"warnings":{to_json(list(warnings))}'
    if infos:
        yield f',"infos":{to_json(list(infos))}'
    yield "}"


def gathered(pieces: Iterator[str]) -> list[bytes]:
    """Texts joined into fewer, as UTF-8."""
    found: list[bytes] = []
    held: list[str] = []
    size = 0
    for piece in pieces:
        held.append(piece)
        size += len(piece)
        if size >= PIECE_BYTES:
            found.append("".join(held).encode("utf-8", "replace"))
            held.clear()
            size = 0
    found.append("".join(held).encode("utf-8", "replace"))
    return found


def query_data(result: Result) -> Iterator[str]:
    """`data` of a query: `{"resultType":...,"result":...}`."""
    yield f'{{"resultType":"{result.kind}","result":'
    yield from _RESULTS[result.kind](result)
    yield "}"


def _scalar(result: Result) -> Iterator[str]:
    assert isinstance(result.value, float)
    yield f'[{seconds_text(result.time_ms)},"{plain_number(result.value)}"]'


def _string(result: Result) -> Iterator[str]:
    yield f"[{seconds_text(result.time_ms)},{to_json(result.value)}]"


def _vector(result: Result) -> Iterator[str]:
    yield "["
    comma = ""
    for labels, time_ms, value in result.vector():
        yield f'{comma}{{"metric":{labels_json(labels)},"value":[{seconds_text(time_ms)},"{number(value)}"]}}'
        comma = ","
    yield "]"


def _matrix(result: Result) -> Iterator[str]:
    yield "["
    comma = ""
    for points in result.matrix():
        yield f'{comma}{{"metric":{labels_json(points.labels)},"values":['
        yield points_json(points.times_ms, points.values)
        yield "]}"
        comma = ","
    yield "]"


_RESULTS: Final = {"scalar": _scalar, "string": _string, "vector": _vector, "matrix": _matrix}


def points_json(times_ms: Sequence[int], values: Sequence[float]) -> str:
    """`[t,"v"],...` without the outer brackets."""
    return ",".join([f'[{seconds_text(at)},"{number(value)}"]' for at, value in zip(times_ms, values, strict=True)])
