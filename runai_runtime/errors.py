"""What a person is told when a container can't have what it asked for."""


class RefusalError(Exception):
    """One sentence, without a prefix: what, why, and what to do.

    Docker turns "no such file or directory" and "executable file not found" into exit status 127 and "permission
    denied" and "not a directory" into 126, so no sentence says these.
    """


def quoted(value: str, limit: int = 60) -> str:
    """VALUE as one printable word for a sentence: it may come from an image, and hold anything."""
    shown = value if len(value) <= limit else value[:limit] + "…"
    return '"' + "".join(c if c.isprintable() else "?" for c in shown) + '"'


def reason(error: OSError) -> str:
    """The kernel's reason in words that docker doesn't take for something else."""
    words = {2: "it isn't there", 13: "access is denied", 20: "a part of its path is no folder", 21: "it is a folder"}
    return words.get(error.errno or 0, error.strerror or "an unknown error")


def log_line(path: str, level: str, sentence: str) -> bool:
    """SENTENCE at the end of a low-level runtime's log, as runc writes it; whether that could be done."""
    import json
    import time

    entry = {"level": level, "msg": f"runai: {' '.join(sentence.split())}"}
    entry["time"] = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(entry) + "\n")
    except OSError:
        return False
    return True
