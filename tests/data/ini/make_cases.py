"""Writes cases.json: INI texts, and what Python's ConfigParser without interpolation answers.

Run with Python 3.11 or newer: python3 make_cases.py > cases.json
"""
import configparser
import io
import json

TEXTS = [
    "",
    "[a]\nx = 1\n",
    "[a]\nx=1\ny:2\nz = a=b:c\n",
    "[a]\nX = 1\nMixedCase = Value\n",
    "[A]\nx = 1\n[a]\nx = 2\n",
    "[a]\nx = 1 ; not a comment\ny = p#ss\n",
    "# comment\n; comment\n[a]\n  # indented comment\nx = 1\n",
    "[a]\nx = \"quoted\"\ny = 'single'\n",
    "[a]\nx = 50%\ny = %(z)s\nz = $HOME\n",
    "[a]\nx =\ny =   \n",
    "[a]\nx = one\n  two\n\tthree\ny = 2\n",
    "[a]\nx = one\n\n  two\n\ny = 2\n",
    "[a]\nx = one\n  # comment inside\n  two\n",
    "[a]\nx = one\n; comment\n  two\n",
    "[a]\n  x = 1\n  y = 2\n",
    "[a]\n  x = 1\n y = 2\n",
    "[a]\nx = 1\n  y = 2\n",
    "[DEFAULT]\nd = 1\n[a]\nx = 2\n[b]\nd = 3\n",
    "[a]\nx = 1\n[DEFAULT]\nd = 1\n[DEFAULT]\ne = 2\n",
    "[default]\nd = 1\n[a]\nx = 2\n",
    "[a]\nx = 1\nx = 2\n",
    "[a]\nx = 1\nX = 2\n",
    "[a]\nx = 1\n[a]\ny = 2\n",
    "[DEFAULT]\nx = 1\nx = 2\n",
    "x = 1\n[a]\n",
    "just text\n[a]\n",
    "[a]\nno value\n",
    "[a]\n= value\n",
    "[a]\n: value\n",
    "[a] ; note\nx = 1\n",
    "[a]b]\nx = 1\n",
    "[ a ]\nx = 1\n",
    "[]\nx = 1\n",
    "[a\nx = 1\n",
    "[a]\nx = [1, 2]\n",
    "[a]\n[b]\n",
    "[a]\r\nx = 1\r\ny = 2\r\n",
    "[a]\rx = 1\ry = 2\r",
    "[a]\nx = 1",
    "[a]\nx y = 1\nx-y.z = 2\n",
    "[a]\nÄ = ü\n",
    "[a]\nx = \u00a0v\u00a0\n",
    "[a]\nx = line\n   \n  more\n",
    "[a]\nx = 1\n  [b]\ny = 2\n",
    "  [a]\n  x = 1\n",
    "[a]\nx := 1\ny == 2\n",
    "[a]\nkey = sudo service cassandra stop\ncmd : a : b\n",
    "[a]\nx = 1\n\n\n\n[b]\ny = 2\n\n\n",
    "\ufeff[a]\nx = 1\n",
    "[a]\n# x = 1\n;x = 2\n",
    "[a]\nx = a\n    b = c\n  d\n",
    "[a]\nx = tab\there\n",
    "[a]\nx = 1\x0b2\n",
]


def answer(text):
    parser = configparser.ConfigParser(interpolation=None)
    try:
        parser.read_file(io.StringIO(text, newline=None))
    except configparser.Error as error:
        line = getattr(error, "lineno", None) or error.errors[0][0]
        return {"text": text, "error": type(error).__name__, "line": line}
    return {"text": text, "sections": {name: dict(parser[name]) for name in parser.sections()}}


print(json.dumps([answer(text) for text in TEXTS], indent=1))
