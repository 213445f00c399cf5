"""The Kopf operator: turns requests into Jobs, keeps their status true, delivers webhooks."""
