"""Packaging: the shared core, and the services below the two source roots http/ and workers/.

Metadata and dependencies are in pyproject.toml. Only what it cannot say stands here: packages come from
three folders, and neither http/ nor workers/ is a package itself (docs/adr/0001-source-roots.md).
"""

from pathlib import Path

from setuptools import find_packages, setup

CORE = find_packages(include=["orderflow", "orderflow.*"])
SERVICES = find_packages("http")
WORKERS = find_packages("workers")

#: What a stack needs beside the code, so that `orderflow stack` works from a wheel too; and what watches it.
KAFKA, PROMETHEUS, GRAFANA = (
    [str(path) for path in sorted(Path("deploy", folder).iterdir()) if path.is_file()]
    for folder in ("kafka", "prometheus", "grafana")
)

setup(
    packages=[*CORE, *SERVICES, *WORKERS],
    package_dir={
        **{name: f"http/{name.replace('.', '/')}" for name in SERVICES},
        **{name: f"workers/{name.replace('.', '/')}" for name in WORKERS},
    },
    package_data={"orderflow.store": ["*.sql"], "orderflow": ["py.typed"]},
    data_files=[
        ("share/orderflow", ["supervisord.conf"]),
        ("share/orderflow/deploy/kafka", KAFKA),
        ("share/orderflow/deploy/prometheus", PROMETHEUS),
        ("share/orderflow/deploy/grafana", GRAFANA),
    ],
)
