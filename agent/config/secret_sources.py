"""Where the text of a Secret comes from: a file, a systemd credential, the environment, or the configuration itself.

No error repeats any of it, except the names of files, credentials and variables.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from agent.config.expand import expand
from agent.core import yaml_nodes as nodes
from agent.core.problems import Place, join, shown
from agent.core.secrets import Secret
from agent.core.yaml_nodes import Node, Text

if TYPE_CHECKING:
    from agent.config.schema import Reader

MOST_BYTES = 64 << 10  # of one secret
CLOSED = "not read here"  # stands for a secret that is for another process
_MOST_PATH = 400  # characters of a file's name in a message: all of any usual one
_FORMS = "write {file: /path}, {credential: name}, ${NAME}, or the text itself"


def read_secret(reader: Reader, node: Node, path: str) -> Secret | None:
    """The secret; None when there is none to be had, said in the reader's errors."""
    if path.partition(".")[0] in reader.closed:
        return Secret(CLOSED)
    if isinstance(node, nodes.Mapping):
        return _from_source(reader, node, path)
    if isinstance(node, nodes.Sequence):
        reader.error(node.place, path, f"found a list; {_FORMS}")
        return None
    if node.is_null:
        reader.error(node.place, path, f"has no value; {_FORMS}, or remove the line")
        return None
    text = _expanded(reader, node, path, is_secret=True)
    if text == "":
        reader.error(node.place, path, f"is empty; {_FORMS}")
    return Secret(text) if text else None


def _from_source(reader: Reader, node: nodes.Mapping, path: str) -> Secret | None:
    if len(node.items) != 1 or not node.items.keys() <= {"file", "credential"}:
        # The keys are not repeated either: `{abc}` is a mapping with the key `abc`.
        reader.error(node.place, path, "takes one source; write {file: /path} or {credential: name}")
        return None
    ((source, value),) = node.items.items()
    if not isinstance(value, Text) or value.is_null:
        reader.error(value.place, join(path, source), f"has no value; write {{{source}: name}}")
        return None
    name = _expanded(reader, value, join(path, source), is_secret=False)
    if name is None:
        return None
    if source == "credential":
        return _from_credential(reader, value.place, join(path, source), name)
    # A relative path is meant from the file that names it, not from where the agent happens to be started.
    file = os.path.join(os.path.dirname(value.place.file), os.path.expanduser(name))
    return _from_file(reader, value.place, join(path, source), file)


def _from_credential(reader: Reader, place: Place, path: str, name: str) -> Secret | None:
    directory = reader.environ.get("CREDENTIALS_DIRECTORY")
    if not directory:
        reader.error(place, path, f"there is no $CREDENTIALS_DIRECTORY; start the agent from a systemd unit with"
                     f" LoadCredential={name}:/path")  # fmt: skip
        return None
    if not name or "/" in name or name in (".", ".."):
        reader.error(place, path, f"{shown(name)} is not the name of a credential; write it as LoadCredential= has it")
        return None
    return _from_file(reader, place, path, os.path.join(directory, name))


def _from_file(reader: Reader, place: Place, path: str, file: str) -> Secret | None:
    """The file's text without the line break at its end."""
    try:
        text, mode = _read(file)
    except ValueError as error:
        reader.error(place, path, f"{shown(file, _MOST_PATH)} {error}")
        return None
    if mode & stat.S_IROTH:
        reader.warn(place, path, f"{shown(file, _MOST_PATH)} can be read by every user of this host; chmod o-rwx it")
    return Secret(text)


def _read(file: str) -> tuple[str, int]:
    """Text and mode of a secret's file. Raise ValueError with what is wrong, as a sentence that follows the name."""
    try:
        # Not blocking: opening a fifo without a writer would wait for ever.
        with open(os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK), "rb") as opened:
            mode = os.fstat(opened.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise ValueError("is not a regular file; name the file that holds the secret")
            data = opened.read(MOST_BYTES + 1)
    except OSError as error:
        raise ValueError(f"cannot be read: {(error.strerror or str(error)).lower()}") from None
    if len(data) > MOST_BYTES:
        raise ValueError(f"is larger than {MOST_BYTES >> 10} KiB; name the file that holds the secret alone")
    try:
        text = data.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise ValueError("is not UTF-8 text") from None
    if not text:
        raise ValueError("is empty; write the secret into it")
    return text, mode


def _expanded(reader: Reader, node: Text, path: str, *, is_secret: bool) -> str | None:
    try:
        expanded = expand(node.text, reader.environ)
    except ValueError as error:
        # Text around a reference may be the secret, and then so may be what looks like a variable's name in it.
        is_reference_alone = node.text.startswith("${") and node.text.find("}") == len(node.text) - 1
        hidden = "names a variable that cannot be put in; write ${NAME} alone, or $$ for a dollar sign"
        reader.error(node.place, path, str(error) if is_reference_alone or not is_secret else hidden)
        return None
    if is_secret and expanded.has_literal:
        reader.plain_secrets.append((node.place, path))
    return expanded.text
