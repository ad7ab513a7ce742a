"""Where a measurement was made: enough to tell unlike hosts apart, nothing that names a machine or a person."""

from __future__ import annotations

import functools
import hashlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

LIBRARIES = ("duckdb", "faiss-cpu", "tantivy", "numpy", "pyarrow", "polars", "msgspec", "cachebox", "theine")


@functools.cache
def _facts() -> tuple[tuple[str, Any], ...]:
    facts: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "os": f"{_distribution()}, {platform.system()} {_two_parts(platform.release())}, {platform.machine()}",
        "python": f"{platform.python_implementation()} {platform.python_version()}",
    }
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
    return (("id", digest[:12]), *facts.items())


def host() -> dict[str, Any]:
    """Return id, cpu, cores, memory_gib, os, python; the id is a digest of the others, equal on equal hosts."""
    return dict(_facts())


def libraries() -> dict[str, str]:
    """Return the versions of what does the work."""
    return {name: version for name in LIBRARIES if (version := _version(name)) is not None}


def _version(name: str) -> str | None:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name.strip() in ("model name", "Model", "Hardware") and value.strip():
                return " ".join(value.split())
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _distribution() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", platform.system())
    except OSError:
        return platform.system()


def _two_parts(release: str) -> str:
    return ".".join(release.split("-", maxsplit=1)[0].split(".")[:2])
