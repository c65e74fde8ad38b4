"""Changes of bytes and texts, drawn at random; what is drawn depends on the generator alone."""

from __future__ import annotations

import json
from random import Random
from typing import Any

#: Numbers at which programs err: borders of types, what stands for "unknown", and their neighbours.
INTEGERS = sorted(
    {sign * (1 << k) + d for k in (0, 7, 8, 15, 16, 24, 31, 32, 62, 63, 64) for d in (-1, 0, 1) for sign in (1, -1)}
)

#: What stands where a number or a name is expected.
WORDS = [
    "", " ", "0", "-0", "1", "-1", "0.0001", "1e-320", "1e308", "1e309", "-1e309", "nan", "inf", "-inf", "NaN", "1,5",
    "1_0",
    "0x10", "١٢", "１", "1e", "--1", "9" * 30, "9" * 5000, "true", "null", "None", "~", "[]", "{}", "[1, 2",
    "{a: b",
    "[1, 2]",
    "[.nan, .inf]", "1:30", "2001-01-01", "*", "**", "[", "?", "!x", "&a", "%", "#", "'", '"', '""', '"a', 'a"b',
    "a\tb", "a\nb", "a\rb", "\r", "\0", "\x1a",
    "\u2028", "\ufeff", "\U0001f600", "é", "e\u0301", "-", "--", "-x", "=", "@", "/", ".", "..",
    "../..", "/dev/null", "/", "C:\\a", "\\", "a" * 256, "ß" * 150, "x/" * 2000, "b" * 140000, "$HOME", "~/x", "%s%n",
    "{0}", "<x>", ";", ",", ",,", "Speech", "Dog", "Speech,Dog", "speech", "Cat ",
]  # fmt: skip


def number_bytes(random: Random) -> bytes:
    """An integer of INTEGERS or any other, in 1 to 8 bytes of either order."""
    n_bytes = random.choice([1, 2, 4, 4, 8])
    number = random.choice([random.choice(INTEGERS), random.getrandbits(8 * n_bytes)])
    return (number % (1 << 8 * n_bytes)).to_bytes(n_bytes, random.choice(["little", "big"]))


def place(random: Random, n_bytes: int) -> int:
    """A position, more often near the beginning, where headers are."""
    return random.randrange(min(n_bytes, random.choice([16, 64, 64, 256, 1024, n_bytes])) or 1) if n_bytes else 0


def mutate(random: Random, data: bytes, other: bytes = b"") -> bytes:
    """`data` after one to six changes: bits, numbers, pieces removed, repeated, exchanged, cut off, or of `other`."""
    for _ in range(random.choice([1, 1, 1, 2, 3, 6])):
        at = place(random, len(data))
        end = at + random.choice([1, 2, 4, 8, 24, 200])
        change = random.randrange(9)
        if change == 0 and data:
            data = data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
        elif change <= 3:
            number = number_bytes(random)
            data = data[:at] + number + data[at + len(number) :]
        elif change == 4:
            data = data[:at] + data[end:]
        elif change == 5:
            data = data[:end] + data[at:]
        elif change == 6:
            data = data[:at] + random.randbytes(random.choice([1, 4, 50])) + data[at:]
        elif change == 7:
            data = data[:at] if random.random() < 0.3 else data[: random.randrange(len(data) + 1)]
        else:
            data = data[:at] + other[place(random, len(other)) :]
    return data


def mutate_table(random: Random, text: str) -> bytes:
    """A tab-separated table after one to six changes of fields, rows, columns, separators or encoding."""
    rows = [line.split("\t") for line in text.splitlines()]
    for _ in range(random.choice([1, 1, 2, 3, 6])):
        row = random.choice(rows) if rows else []
        at = random.randrange(len(row) + 1)
        change = random.randrange(8)
        if change <= 2:
            row[at : at + 1] = [random.choice(WORDS)]
        elif change == 3:
            row[at : at + 1] = []
        elif change == 4:
            row.insert(at, random.choice([*row, random.choice(WORDS)]))
        elif change == 5 and rows:
            rows.insert(random.randrange(len(rows)), list(random.choice(rows)))
        elif change == 6 and rows:
            del rows[random.randrange(len(rows))]
        else:
            random.shuffle(random.choice([row, rows]))
    separator = random.choice(["\t"] * 12 + [",", ";", " ", "\t\t"])
    text = random.choice(["\n"] * 8 + ["\r\n", "\r", "\n\n"]).join(separator.join(row) for row in rows)
    encoding = random.choice(["utf-8"] * 12 + ["utf-8-sig", "utf-16", "latin-1", "utf-32-be"])
    data = (text + random.choice(["\n", ""])).encode(encoding, errors="replace")
    return mutate(random, data, data) if random.random() < 0.2 else data


def mutate_json(random: Random, text: str) -> bytes:
    """JSON after changes of its values, keys or shape, or of its bytes."""
    if random.random() < 0.2:
        return mutate(random, text.encode(), text.encode())
    if random.random() < 0.05:
        return random.choice([b"", b"null", b"[" * 100_000, b"9" * 5000, b'{"a": NaN}', b"\xff\xfe{"])
    return json.dumps(mutate_tree(random, json.loads(text))).encode()


def mutate_tree(random: Random, tree: Any) -> Any:
    """JSON after one or two changes of its values, keys or shape."""
    for _ in range(random.choice([1, 1, 2])):
        nodes: list[tuple[Any, Any]] = []
        _collect(tree, nodes)
        if not nodes:
            return random.choice([None, [], 1])
        container, key = random.choice(nodes)
        old = container[key]
        change = random.randrange(8)
        if change <= 2:
            container[key] = random.choice(
                [
                    None,
                    True,
                    0.5,
                    -0.5,
                    float("nan"),
                    float("inf"),
                    [],
                    {},
                    [old],
                    {"a": old},
                    10**4,
                    10**6,
                    10**9,
                    *INTEGERS,
                    *WORDS,
                ]
            )
        elif change == 3 and isinstance(old, int):
            container[key] = old + random.choice([-1, 1, 2, 100])
        elif change == 4:
            del container[key]
        elif change == 5 and isinstance(container, dict):
            container[random.choice(WORDS)] = container.pop(key)
        elif change == 6:
            container[key] = random.choice(nodes)[0]
            if _is_circular(tree):
                container[key] = old
        elif isinstance(container, list):
            container.insert(key, old)
    return tree


def _collect(tree: Any, nodes: list[tuple[Any, Any]]) -> None:
    for key in list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ():
        nodes.append((tree, key))
        _collect(tree[key], nodes)


def _is_circular(tree: Any) -> bool:
    try:
        json.dumps(tree)
    except ValueError:
        return True
    return False
