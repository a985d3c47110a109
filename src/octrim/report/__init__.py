"""`octrim report`: a run's results as one HTML file that needs nothing else: no network, no JavaScript, no files beside it.

files.py reads the folder into the types of contents.py; charts.py draws with the marks of svg.py; shots.py runs the networks on some pictures;
sections.py gathers what report.html, with report.css and report.js inside it, lays out.
"""
