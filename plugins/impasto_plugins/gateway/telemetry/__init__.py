"""Telemetry: metrics, traces, the access log, the loop monitor."""
