"""What runs in an environment of its own, without the repository: ``make test-wheel``."""

collect_ignore = ["test_wheel.py"]
