"""What a run leaves for people and programs: one page to look at, and one summary to read."""

from sensebind.fusion.report.data import Occurrence, ReportData, Similarity, occurrences, similarities
from sensebind.fusion.report.media import Media
from sensebind.fusion.report.page import render, write
from sensebind.fusion.report.summary import summary, write_summary

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
