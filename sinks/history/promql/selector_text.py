"""The token cursor, and what stands in braces: label matchers, quoted names, lists of label names."""

from agent.core.labels import METRIC_NAME, Matcher, MatchOp, PatternError
from agent.core.query import ParseError, UnsupportedError
from sinks.history.promql import lexer
from sinks.history.promql.ast import VectorSelector
from sinks.history.promql.lexer import Token

_OPERATORS: dict[str, MatchOp] = {"=": "=", "!=": "!=", "=~": "=~", "!~": "!~"}


class SelectorParser:
    """Cursor over the tokens of `text`: `now` is the next token, `before` the one just taken."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = lexer.tokens(text)
        self.index = 0
        self.now = self.tokens[0]
        self.depth = 0

    @property
    def before(self) -> Token:
        return self.tokens[self.index - 1]

    def take(self) -> Token:
        token = self.now
        if token.kind != "end":
            self.index += 1
            self.now = self.tokens[self.index]
        return token

    def peek(self, kind: str) -> bool:
        """Is the token after the next of this kind?"""
        return self.now.kind != "end" and self.tokens[self.index + 1].kind == kind

    def peek_word(self, *words: str) -> bool:
        """Is the token after the next one of these words?"""
        return self.peek("word") and self.tokens[self.index + 1].text.lower() in words

    def word(self, text: str) -> bool:
        """Is the next token this keyword, in any case?"""
        return self.now.kind == "word" and self.now.text.lower() == text

    def expect(self, kind: str, hint: str = "") -> Token:
        if self.now.kind != kind:
            raise self.wrong(f"found {self.shown()}, expected {kind!r}", hint)
        return self.take()

    def shown(self) -> str:
        """The next token as an error names it."""
        if self.now.kind == "end":
            return "the end of the query"
        return repr(self.now.text if len(self.now.text) <= 40 else self.now.text[:40] + "...")

    def wrong(self, message: str, hint: str = "") -> ParseError:
        """The error, placed at the next token."""
        return self.wrong_at(self.now.start, message, hint)

    def wrong_at(self, offset: int, message: str, hint: str = "") -> ParseError:
        """The error, placed at this offset."""
        return lexer.error(self.text, offset, message, hint)

    def unsupported(self, message: str, hint: str) -> UnsupportedError:
        """What PromQL has and this engine has not, placed at the next token."""
        line, column = lexer.place(self.text, self.now.start)
        return UnsupportedError(message, line, column, hint)

    def label_list(self) -> tuple[str, ...]:
        """Names in parentheses, a trailing comma allowed."""
        self.expect("(", "label names stand in parentheses")
        names: list[str] = []
        while self.now.kind != ")":
            names.append(self._label_name("a label name"))
            if self.now.kind != ",":
                break
            self.take()
        self.expect(")")
        return tuple(names)

    def _label_name(self, what: str) -> str:
        token = self.now
        if token.kind == "word" and ":" not in token.text:
            self.take()
            return token.text
        if token.kind == "string":
            self.take()
            self._valid_text(token, "label name")
            return str(token.value)
        raise self.wrong(f"found {self.shown()}, expected {what}")

    def _valid_text(self, token: Token, what: str) -> None:
        name = str(token.value)
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise self.wrong_at(token.start, f"found {token.text}, a {what} that is not UTF-8") from error
        if not name:
            raise self.wrong_at(token.start, f"found an empty {what}")

    def selector(self, name: Token | None) -> VectorSelector:
        """What follows an optional metric name: {matchers}, or nothing after a name."""
        start = name.start if name else self.now.start
        metric = name.text if name else ""
        matchers: list[Matcher] = []
        if self.now.kind == "{":
            self.take()
            while self.now.kind != "}":
                metric = self._condition(metric, matchers)
                if self.now.kind != ",":
                    break
                self.take()
            self.expect("}", 'conditions are written name="value", with a comma between them')
        if metric:
            for matcher in matchers:
                if matcher.name == METRIC_NAME and matcher.op == "=":
                    raise self.wrong_at(start, f"metric name is set twice: {metric!r} and {matcher.value!r}")
            matchers.append(Matcher(METRIC_NAME, "=", metric))
        if all(matcher.matches("") for matcher in matchers):
            hint = 'name a metric, or write {__name__=~".+"} for all of them'
            raise self.wrong_at(
                start,
                "selector matches everything, expected at least one condition that does not fit the empty text",
                hint,
            )
        if not metric:
            metric = next((m.value for m in matchers if m.name == METRIC_NAME and m.op == "="), "")
        return VectorSelector(metric, tuple(matchers), start=start, end=self.before.end, height=1)

    def _condition(self, metric: str, matchers: list[Matcher]) -> str:
        """Read name="value" into `matchers`, or a quoted metric name; the metric name known by then."""
        token = self.now
        name = self._label_name("a label name or a quoted metric name")
        if token.kind == "string" and self.now.kind in {",", "}"}:
            if metric:
                raise self.wrong_at(token.start, f"metric name is set twice: {metric!r} and {name!r}")
            return name
        operator = _OPERATORS.get(self.now.kind)
        if operator is None:
            hint = "equality is a single = in braces" if self.now.kind == "==" else ""
            raise self.wrong(f"found {self.shown()}, expected one of = != =~ !~", hint)
        self.take()
        value = self.now
        if value.kind != "string":
            raise self.wrong(f"found {self.shown()}, expected a quoted text", "label values stand in quotes")
        self.take()
        try:
            matchers.append(Matcher(name, operator, str(value.value)))
        except PatternError as error:
            hint = "lookaround and backreferences do not exist in RE2" if "(?" in value.text else ""
            raise self.wrong_at(value.start, f"invalid regular expression: {error}", hint) from error
        return metric
