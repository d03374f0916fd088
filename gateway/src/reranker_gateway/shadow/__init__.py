"""Shadow traffic: some requests are sent to the revision that is on its way, and scores compared.

`samples` holds the texts of those that were chosen, `preview` asks the other revision, `sender`
compares. Callers wait for none of it: what finds no room is not compared.
"""
