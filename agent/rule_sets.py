"""Which rules are in force: those that come with the agent and those of rules.d, as the overrides adjust them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from agent.core.problems import Place, Problem
from agent.places import beside
from agent.promql_language import PromQL
from alerting.options import RulesOptions
from alerting.rule_files import RuleSet, read_rule_files
from alerting.rule_overrides import apply_overrides

DIRECTORY = "rules.d"  # beside the configuration
_DEFAULTS = Path(__file__).parent.parent / "alerting" / "defaults"
_SUFFIXES = (".yaml", ".yml")


def default_rule_files() -> list[str]:
    """The rule files that come with the agent."""
    return sorted(str(path) for path in _DEFAULTS.glob("*.yml"))


def rules_directory(options: RulesOptions, config_files: Sequence[str]) -> str:
    """Where the rule files of this host are. `config_files`: those that were read, the main one first."""
    return beside(config_files, options.directory or DIRECTORY)


def load_rules(options: RulesOptions, directory: str) -> RuleSet:
    """Every rule that can be used, what is wrong with the others, what is doubtful."""
    found = RuleSet()
    paths = default_rule_files() if options.defaults else []
    try:
        names = sorted(name for name in os.listdir(directory) if not name.startswith("."))
        paths += [os.path.join(directory, name) for name in names if name.endswith(_SUFFIXES)]
    except FileNotFoundError:
        pass
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        found.errors.append(Problem(Place(directory), "", f"cannot be read: {reason}; let the agent's user list it"))
    language = PromQL()
    read = read_rule_files(paths, language)
    read.errors[:0] = found.errors
    return apply_overrides(read, options.overrides, language)
