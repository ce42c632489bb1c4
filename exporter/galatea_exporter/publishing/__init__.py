"""Publishing: what a release must be before others get it, where it goes, and how it comes back.

>>> from galatea.evaluation import Report
>>> from galatea.repository import find
>>> from galatea_exporter.publishing.gate import check
>>> from galatea_exporter.publishing.publishing import publish
>>> from galatea_exporter.publishing.pulling import pull
>>> release = find(Path("model_repository"), "phantom")
>>> verdict = check(release, report=Report.read(Path("evaluation")))
>>> publish(verdict, "phantom-1")
>>> pull("phantom-1", Path("elsewhere"))
"""
