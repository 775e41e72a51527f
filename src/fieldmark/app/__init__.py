"""The application in a browser: a project in a folder, from photos to results, without a command line.

`store`, `decisions`, `queues`, `jobs`, `choosing`, `learning`, `pictures` and `results` are plain Python and
know nothing of pages; `server` and `pages` show them (NiceGUI).
"""
