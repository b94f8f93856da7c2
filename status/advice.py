"""What a refusal of Redis means, and what to do about it, in one line."""

from __future__ import annotations

#: How the refusals begin that somebody must do something about.
_REMEDIES = {
    "OOM": "Redis is out of memory and takes no writes: raise its maxmemory, or let runs end and expire",
    "MISCONF": "Redis can't write to its disk and takes no writes: free or mend the disk",
    "READONLY": "this Redis is a replica and takes no writes: point REDIS_URL at the primary",
    "NOREPLICAS": "Redis has too few replicas and takes no writes: bring them back, or lower min-replicas-to-write",
    "NOAUTH": "Redis asks for a password: put it into REDIS_URL",
    "WRONGPASS": "Redis does not take this password: correct it in REDIS_URL",
    "NOPERM": "this Redis user may not do that: give it all commands on the keys celeriac:*",
}

#: What redis-py leaves of them: it cuts the first word off where it has a class for it.
_TEXTS = {
    "command not allowed when used memory": "OOM",
    "You can't write against a read only replica": "READONLY",
    "errors writing to the AOF file": "MISCONF",
    "unable to persist to disk": "MISCONF",
}


def advice(error: Exception) -> str:
    """The error as it reads, with the remedy in front if there is one."""
    text = str(error)
    word = text.partition(" ")[0]
    found = word if word in _REMEDIES else next((kind for part, kind in _TEXTS.items() if part in text), None)
    return f"{_REMEDIES[found]} ({text})" if found else text
