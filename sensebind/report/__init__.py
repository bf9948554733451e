"""Results of a run: a report page for people, a summary for programs."""

from sensebind.fusion.core.events import EventInterval, intervals_from_events
from sensebind.report.page import render_report, write_report
from sensebind.report.report_data import ReportData, Similarity, similarities
from sensebind.report.sensor_previews import SensorPreviews
from sensebind.report.summary import TrueEvent, summary, true_events, write_summary

__all__ = [
    "EventInterval",
    "ReportData",
    "SensorPreviews",
    "Similarity",
    "TrueEvent",
    "intervals_from_events",
    "render_report",
    "similarities",
    "summary",
    "true_events",
    "write_report",
    "write_summary",
]
