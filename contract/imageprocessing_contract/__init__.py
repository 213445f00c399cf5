"""What operator and worker agree on: request, task, report, names, reasons."""
