#!/usr/bin/env python3
"""A stand-in for the client lxc(1) of LXD, a directory instead of a server: quick, and it fails when it is told to.

It knows the commands that our backups use, keeps instances and volumes as tar files, writes down how it was called, and
fails where a file tells it to. It proves our argument lists and what we make of the answers; tests/proof/lxd.py has a
real LXD.
"""

import json
import os
import shutil
import sys

HOME = os.path.dirname(os.path.abspath(__file__))


def place(*words: str) -> str:
    return os.path.join(HOME, *words)


def main(words: list[str]) -> None:
    with open(place("calls"), "a", encoding="utf-8") as calls:
        calls.write(json.dumps(words) + "\n")
    plain = [word for word in words if not word.startswith("--")]
    if os.path.exists(place("fails", "-".join(plain[:2]))):
        if "export" in plain:
            with open(plain[-1], "wb") as file:
                file.write(b"part of it")
        sys.exit("Error: scripted to fail")
    match plain:
        case ["version"]:
            print("Client version: 5.0.2\nServer version: 5.0.2")
        case ["list"]:
            show([{"name": name, "status": "Running", "type": "container"} for name in names("instances")])
        case ["query", path]:
            print(json.dumps([{"name": "default", "asked": path}]))
        case ["export", name, file]:
            shutil.copy(place("instances", name), file)
        case ["import", file, name]:
            shutil.copy(file, place("instances", name))
        case ["delete", name]:
            os.unlink(place("instances", name))
        case ["storage", *more]:
            storage(more)
        case _:
            sys.exit(f"Error: the stand-in does not know {words}")


def storage(plain: list[str]) -> None:
    match plain:
        case ["list"]:
            show([{"name": name} for name in names("volumes")])
        case ["volume", "list", pool]:
            found = [{"name": name, "type": "custom", "content_type": "filesystem"} for name in names("volumes", pool)]
            images = [{"name": "installer", "type": "custom", "content_type": "iso"}]
            show([*found, {"name": "web", "type": "container", "content_type": "filesystem"},
                  *(images if os.path.exists(place("has-iso")) else [])])  # fmt: skip
        case ["volume", "export", pool, name, file]:
            shutil.copy(place("volumes", pool, name), file)
        case ["volume", "import", pool, file, name]:
            shutil.copy(file, place("volumes", pool, name))
        case ["volume", "delete", pool, name]:
            os.unlink(place("volumes", pool, name))
        case _:
            sys.exit(f"Error: the stand-in does not know {plain}")


def names(*where: str) -> list[str]:
    return sorted(os.listdir(place(*where)))


def show(found: list[dict[str, str]]) -> None:
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
