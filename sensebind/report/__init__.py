"""What a run leaves for people and programs: one page to look at, and one summary to read."""

from sensebind.fusion.core.events import Occurrence, occurrences
from sensebind.report.data import ReportData, Similarity, similarities
from sensebind.report.media import Media
from sensebind.report.page import render, write
from sensebind.report.summary import summary, write_summary

__all__ = [
    "Media",
    "Occurrence",
    "ReportData",
    "Similarity",
    "occurrences",
    "render",
    "similarities",
    "summary",
    "write",
    "write_summary",
]
