"""What operator and worker agree on: request, task, report, names, reasons."""

__version__ = "0.1.0"
