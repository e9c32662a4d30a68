"""llhttp's test vectors: Markdown, in which a block `http` is what is sent and the block `log` after it what a
parser must call. Of the log one thing is used: whether it ends in an error."""

import re
from collections import namedtuple

BLOCKS = re.compile(r"<!-- meta=(\{.*?\}) -->\s*```http\n(.*?)```\s*```log\n(.*?)```", re.DOTALL)
ERROR = re.compile(r"error code=(\d+)")
REQUEST_LINE = re.compile(rb"^[A-Z-]+ [^ \r\n]+ [A-Z]+/\d\.\d\r\n", re.MULTILINE)

# Not errors but stops: on purpose (a pause, an upgrade, HTTP/2's preface), or after Connection: close, where
# a server has no business to look at what follows.
STOPS = {"5", "21", "22", "23"}

# `messages`: how many are whole and want an answer. None is where the parser is told to expect no body.
Vector = namedtuple("Vector", "name said refused messages")


def is_strict_request(meta):
    """The others are for one of the leniences, of which none is on here, or for the end of the input."""
    return re.search(r'"type":\s*"request"', meta) is not None


def unescaped(text):
    text = re.sub(r"\\\n", "", text.removesuffix("\n")).replace("\n", "\r\n")
    for escape, char in (("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t"), ("\\f", "\f")):
        text = text.replace(escape, char)
    text = re.sub(r"\\x([0-9a-fA-F]+)", lambda found: chr(int(found[1], 16)), text)
    text = re.sub(r"\\([0-7]{1,3})", lambda found: chr(int(found[1], 8)), text)
    return text.encode()


def with_host(said):
    """A parser does not miss it; a server must."""
    if re.search(rb"(?i)^host\s*:", said, re.MULTILINE):
        return said
    return REQUEST_LINE.sub(rb"\g<0>Host: localhost\r\n", said)


def vectors(directory):
    for file in sorted(directory.glob("*.md")):
        text = file.read_text(encoding="utf-8")
        for found in BLOCKS.finditer(text):
            meta, said, log = found.groups()
            if not is_strict_request(meta):
                continue
            error = ERROR.search(log)
            yield Vector(name=f"{file.stem}.md:{text.count(chr(10), 0, found.start(2))}",
                         said=with_host(unescaped(said)),
                         refused=error is not None and error[1] not in STOPS,
                         messages=0 if "skipBody" in meta else log.count("message complete"))
