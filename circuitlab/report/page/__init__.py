"""Pages: one HTML file that opens offline, made of parts that other pages can take too.

`write_report` is the page of one or more runs. A page is a list of `Part`s (a section's markup, and the data that
its script draws); `document` puts them into one file with plotly.js, the style and the script.
"""

from circuitlab.report.page.document import document, write_page
from circuitlab.report.page.parts import Part
from circuitlab.report.page.runs import PARTS, Options, report, write_report

__all__ = ["PARTS", "Options", "Part", "document", "report", "write_page", "write_report"]
